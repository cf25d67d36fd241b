/**
 * Calls control with Connect's own client, which has the contract from the generated code, and everything else from
 * Connect's specification.
 */

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";

import { SyncTokenService } from "../src/gen/openagents/control/v1/sync_token_service_pb.js";

export interface Options {
  readonly control: string;
  readonly token: string;
  readonly topic: string;
}

export interface Called {
  readonly binary: boolean;
  readonly granted: readonly boolean[];
  readonly refused: readonly string[];
}

/** What became of one good call, one without a token, and one with a bad field: in JSON, and in protobuf. */
export async function calls({ control, token, topic }: Options): Promise<readonly Called[]> {
  const results: Called[] = [];
  for (const binary of [false, true]) {
    const client = createClient(
      SyncTokenService,
      createConnectTransport({ baseUrl: control, useBinaryFormat: binary }),
    );
    const signedIn = { headers: { Authorization: `Bearer ${token}` }, timeoutMs: 30_000 };
    const minted = await client.mintSyncToken({ topics: [topic], surface: "web" }, signedIn);
    const granted = minted.grants.map((grant) => grant.granted);
    const nobody = await refusalOf(client.mintSyncToken({ topics: [topic] }));
    const bad = await refusalOf(client.mintSyncToken({ topics: [topic], ttlSeconds: 1 }, signedIn));
    results.push({ binary, granted, refused: [nobody, bad] });
  }
  return results;
}

async function refusalOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "";
  } catch (error) {
    const { code, details } = ConnectError.from(error);
    const info = details.find((one) => "type" in one && one.type === "google.rpc.ErrorInfo");
    const reason = (info as { debug?: { reason?: string } } | undefined)?.debug?.reason;
    return `${Code[code]} ${reason}`;
  }
}
