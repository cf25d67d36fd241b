import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { create, fromJson, toBinary, type JsonValue } from "@bufbuild/protobuf";

import { NO_BYTES, type ServerFrame } from "../src/core/frames.js";
import { ClientFrameSchema, type ClientFrame } from "../src/gen/openagents/sync/v1/client_frame_pb.js";
import {
  FrameKind,
  KhalaFrameSchema,
  SubscribedSchema,
  type KhalaFrame,
} from "../src/gen/openagents/sync/v1/frame_pb.js";
import { RunEventSchema } from "../src/messages.js";
import { Refusal } from "../src/refusal.js";
import { decodeServerFrame, encodeClientFrame } from "../src/wire.js";
import { GOLDEN } from "./transcripts.js";

const T = "run:run_01K0000000000000000000000A:events";
const CHAIN = Uint8Array.from({ length: 32 }, (_, i) => i);

function golden(name: string): Uint8Array {
  return new Uint8Array(readFileSync(new URL(`${name}.binpb`, GOLDEN)));
}

function goldenJson(name: string): JsonValue {
  return JSON.parse(readFileSync(new URL(`${name}.json`, GOLDEN), "utf-8")) as JsonValue;
}

const NAMES = readdirSync(GOLDEN).flatMap((name) => (name.endsWith(".binpb") ? [name.slice(0, -".binpb".length)] : []));

test("events of old are read, and written with the same bytes", () => {
  const names = NAMES.filter((name) => name.startsWith("event_"));
  assert(names.length > 20);
  for (const name of names) {
    assert.deepEqual(toBinary(RunEventSchema, fromJson(RunEventSchema, goldenJson(name))), golden(name), name);
  }
});

// What the session says, for each golden frame of a client.
const CLIENT_FRAMES: Readonly<Record<string, Parameters<typeof encodeClientFrame>[0]>> = {
  client_hello: hello(),
  client_ping: { kind: "ping", nonce: Number(client("client_ping", "ping").nonce) },
  client_refresh_token: { kind: "refreshToken", token: client("client_refresh_token", "refreshToken").token },
  client_subscribe: subscribe("client_subscribe"),
  client_subscribe_bound: subscribe("client_subscribe_bound"),
  client_subscribe_snapshots: subscribe("client_subscribe_snapshots"),
  client_unsubscribe: { kind: "unsubscribe", topics: client("client_unsubscribe", "unsubscribe").topics },
};

type Bodies = { [B in ClientFrame["body"] as B["case"] & string]: B["value"] };

function client<K extends keyof Bodies>(name: string, kind: K): Bodies[K] {
  const { body } = fromJson(ClientFrameSchema, goldenJson(name));
  assert.equal(body.case, kind);
  return body.value as Bodies[K];
}

function hello() {
  const { token, deviceId, clientBuildId, protocolVersion, schemaVersion } = client("client_hello", "hello");
  return { kind: "hello", token, deviceId, clientBuildId, protocolVersion, schemaVersion } as const;
}

function subscribe(name: string) {
  const asked = client(name, "subscribe").topics;
  const topics = asked.map(({ topic, cursor }) => {
    if (cursor === undefined) return [topic, null] as const;
    return [topic, { epoch: cursor.epoch, appliedSeq: Number(cursor.appliedSeq), chain: cursor.chain }] as const;
  });
  const takesSnapshots = asked.flatMap(({ topic, takesSnapshots }) => (takesSnapshots ? [topic] : []));
  return { kind: "subscribe", topics, takesSnapshots } as const;
}

test("what a client says has the golden bytes", () => {
  assert.deepEqual(Object.keys(CLIENT_FRAMES), NAMES.filter((name) => name.startsWith("client_")).sort());
  for (const [name, frame] of Object.entries(CLIENT_FRAMES)) {
    assert.deepEqual(encodeClientFrame(frame), golden(name), name);
  }
});

test("golden frames of gateways are read", () => {
  const read = Object.fromEntries(
    NAMES.filter((name) => name.startsWith("frame_")).map((name) => [name, decodeServerFrame(golden(name))]),
  );
  const kinds = Object.fromEntries(Object.entries(read).map(([name, frame]) => [name, frame.kind]));
  assert.deepEqual(kinds, {
    frame_caught_up: "caughtUp",
    frame_draining: "draining",
    frame_error_other_content: "error",
    frame_error_stale_cursor: "error",
    frame_event: "event",
    frame_heartbeat: "heartbeat",
    frame_snapshot_part: "snapshot",
    frame_subscribed: "subscribed",
    frame_subscribed_snapshot: "subscribed",
    frame_welcome: "welcome",
  });
  const { frame_subscribed: subscribed, frame_error_other_content: error } = read;
  assert.deepEqual(subscribed, {
    kind: "subscribed",
    topic: T,
    epoch: "e1",
    floor: 0,
    head: 12,
    plan: "replay",
    fromSeq: 3,
    chain: NO_BYTES,
  });
  const { frame_snapshot_part: part, frame_subscribed_snapshot: anchored } = read;
  assert(part?.kind === "snapshot" && anchored?.kind === "subscribed");
  assert.deepEqual([part.seq, part.part, part.parts], [11, 2, 3]);
  assert.deepEqual([anchored.plan, anchored.fromSeq, anchored.chain], ["snapshot", 11, CHAIN]);
  assert(error?.kind === "error");
  assert.equal(error.reason, "epoch_mismatch");
  assert.deepEqual(error.chain, CHAIN);
});

function decoded(
  frame: Partial<Pick<KhalaFrame, "topic" | "seq" | "kind" | "payloadBytes" | "schemaVersion">>,
): ServerFrame {
  return decodeServerFrame(
    toBinary(KhalaFrameSchema, create(KhalaFrameSchema, { topic: T, schemaVersion: 1, ...frame })),
  );
}

function refusedFor(reason: string, field: string): (error: unknown) => boolean {
  return (error) => error instanceof Refusal && error.reason === reason && error.field === field;
}

test("what is no frame is refused, and says which field is wrong", () => {
  const bad = new Uint8Array([0xff]);
  assert.throws(() => decodeServerFrame(bad), refusedFor("malformed_message", ""));
  assert.throws(() => decoded({ kind: FrameKind.EVENT }), refusedFor("missing_field", "seq"));
  assert.throws(() => decoded({ kind: FrameKind.EVENT, seq: 1n, topic: "" }), refusedFor("missing_field", "topic"));
  assert.throws(() => decoded({ kind: FrameKind.EVENT, seq: 2n ** 53n }), refusedFor("invalid_value", "seq"));
  assert.throws(
    () => decoded({ kind: FrameKind.SUBSCRIBED, payloadBytes: bad }),
    refusedFor("payload_mismatch", "payload_bytes"),
  );
  assert.throws(() => decoded({ kind: FrameKind.SUBSCRIBED }), refusedFor("missing_field", "epoch"));
  const planned = toBinary(SubscribedSchema, create(SubscribedSchema, { epoch: "e1" }));
  assert.throws(
    () => decoded({ kind: FrameKind.SUBSCRIBED, payloadBytes: planned }),
    refusedFor("invalid_enum", "plan"),
  );
  assert.throws(() => decoded({ kind: FrameKind.WELCOME }), refusedFor("missing_field", "connection_id"));
  const other = { kind: FrameKind.WELCOME, schemaVersion: 2 };
  assert.throws(() => decoded(other), refusedFor("unsupported_schema_version", "schema_version"));
});

test("a frame of another kind is told by its number, whatever is in it", () => {
  const unknown = { kind: 99 as FrameKind, payloadBytes: new Uint8Array([0xff]), schemaVersion: 7 };
  assert.deepEqual(decoded(unknown), { kind: "unknown", number: 99 });
});
