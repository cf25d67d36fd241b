/**
 * Calls control with Connect's own client, which has the contract from the generated code, and everything else from
 * Connect's specification; and gets a sync token as a `KhalaClient` does.
 */

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";

import { controlTokens } from "../src/control.js";
import { runsOf } from "../src/core/grants.js";
import { SyncTokenService } from "../src/gen/openagents/control/v1/sync_token_service_pb.js";

export interface Options {
  readonly control: string;
  readonly token: string;
  readonly topic: string;
  readonly user: string;
  /** An access token that has expired. */
  readonly expired: string;
}

export interface Called {
  readonly binary: boolean;
  readonly granted: readonly boolean[];
  readonly refused: readonly string[];
}

export interface Minted {
  readonly granted: readonly string[];
  readonly refused: string;
  readonly asked: number;
  readonly renewals: number;
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

/** What a sync token grants that is asked for with an access token that has expired: a topic, and runs of owners. */
export async function minted({ control, token, topic, user, expired }: Options): Promise<Minted> {
  const rejected: (string | undefined)[] = [];
  const accessToken = (old?: string): string => {
    rejected.push(old);
    return old === undefined ? expired : token;
  };
  const nobody = runsOf("org_01J9ZQ6T5W3M8K2N4P7R1S0V6X");
  const grant = await controlTokens({ url: control, accessToken })([runsOf(user), nobody, topic]);
  const renewals = rejected.filter((old) => old === expired).length;
  return { granted: grant.topics, refused: grant.refused?.[nobody] ?? "", asked: rejected.length, renewals };
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
