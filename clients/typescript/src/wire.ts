/**
 * Frames <-> bytes: binary protobuf, the subprotocol `khala.v1.proto`. The only module that knows the frames' generated
 * types. Decoding is total: it returns a value, or throws Refusal.
 */

import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { timestampMs } from "@bufbuild/protobuf/wkt";

import type * as frames from "./core/frames.js";
import { NO_BYTES, SCHEMA_VERSION } from "./core/frames.js";
import { ClientFrameSchema, type ClientFrame } from "./gen/openagents/sync/v1/client_frame_pb.js";
import {
  CaughtUpSchema,
  DeliveryPlan,
  DrainingSchema,
  ErrorSchema,
  FrameKind,
  HeartbeatSchema,
  KhalaFrameSchema,
  SubscribedSchema,
  WelcomeSchema,
  type KhalaFrame,
} from "./gen/openagents/sync/v1/frame_pb.js";
import { Refusal } from "./refusal.js";

export const SUBPROTOCOL = "khala.v1.proto";

const PLANS: Readonly<Record<number, frames.Plan>> = {
  [DeliveryPlan.LIVE]: "live",
  [DeliveryPlan.REPLAY]: "replay",
  [DeliveryPlan.SNAPSHOT]: "snapshot",
};

/** Throws Refusal `invalid_setting` where messages can't be written or read: the library throws only when it does. */
export function checkEnvironment(): void {
  const missing = ["TextEncoder", "TextDecoder"].find((name) => !(name in globalThis));
  if (missing === undefined) return;
  const text = `there is no ${missing} here; install one on globalThis, for example with a polyfill`;
  throw new Refusal("invalid_setting", text, { field: missing });
}

// -------------------------------------------------------------------------------------------------- client frames

/** Return the bytes that a client sends for `frame`. */
export function encodeClientFrame(frame: frames.ClientFrame): Uint8Array<ArrayBuffer> {
  return toBinary(ClientFrameSchema, create(ClientFrameSchema, { body: clientBody(frame) }));
}

function clientBody(frame: frames.ClientFrame): NonNullable<MessageInitShape<typeof ClientFrameSchema>["body"]> {
  switch (frame.kind) {
    case "hello": {
      const { kind: _, ...value } = frame;
      return { case: "hello", value };
    }
    case "subscribe":
      return {
        case: "subscribe",
        value: {
          topics: frame.topics.map(([topic, cursor]) => {
            return { ...subscription(topic, cursor), takesSnapshots: frame.takesSnapshots.includes(topic) };
          }),
        },
      };
    case "unsubscribe":
      return { case: "unsubscribe", value: { topics: [...frame.topics] } };
    case "refreshToken":
      return { case: "refreshToken", value: { token: frame.token } };
    case "ping":
      return { case: "ping", value: { nonce: BigInt(frame.nonce) } };
  }
}

function subscription(topic: string, cursor: frames.Cursor | null) {
  if (cursor === null) return { topic };
  const { epoch, chain } = cursor;
  return { topic, cursor: { topic, epoch, appliedSeq: BigInt(cursor.appliedSeq), chain } };
}

/** Decode what a client sent; for tests of servers. */
export function decodeClientFrame(data: Uint8Array): ClientFrame {
  return parse(ClientFrameSchema, data, "malformed_message");
}

// -------------------------------------------------------------------------------------------------- server frames

/**
 * Decode what a gateway sent. A kind that this version does not know becomes an UnknownFrame. Throws Refusal naming the
 * field when it is not a valid KhalaFrame, and `unsupported_schema_version` when a control frame's payload is of a
 * schema that this version does not know.
 */
export function decodeServerFrame(data: Uint8Array): frames.ServerFrame {
  const frame = parse(KhalaFrameSchema, data, "malformed_message");
  switch (frame.kind) {
    case FrameKind.EVENT:
      return { kind: "event", ...element(frame) };
    case FrameKind.SNAPSHOT:
      return { kind: "snapshot", ...element(frame), part: frame.part, parts: frame.parts };
  }
  const decode = DECODERS[frame.kind];
  if (decode === undefined) return { kind: "unknown", number: frame.kind };
  if (frame.schemaVersion !== SCHEMA_VERSION) {
    const text = "the gateway speaks another schema than this client; update the older of the two";
    throw new Refusal("unsupported_schema_version", text, { field: "schema_version" });
  }
  return decode(frame);
}

const DECODERS: Readonly<Record<number, (frame: KhalaFrame) => frames.ServerFrame>> = {
  [FrameKind.WELCOME]: welcome,
  [FrameKind.SUBSCRIBED]: subscribed,
  [FrameKind.CAUGHT_UP]: (frame) => {
    const { seq } = payload(CaughtUpSchema, frame);
    return { kind: "caughtUp", topic: need(frame.topic, "topic"), seq: Number(seq) };
  },
  [FrameKind.HEARTBEAT]: heartbeat,
  [FrameKind.ERROR]: error,
  [FrameKind.DRAINING]: (frame) => {
    return { kind: "draining", reconnectAfterMs: payload(DrainingSchema, frame).reconnectAfterMs };
  },
};

function element(frame: KhalaFrame) {
  const topic = need(frame.topic, "topic");
  const seq = exact(frame.seq, "seq");
  if (frame.kind === FrameKind.EVENT) need(seq, "seq");
  return { topic, seq, payload: frame.payloadBytes, schemaVersion: frame.schemaVersion };
}

function welcome(frame: KhalaFrame): frames.Welcome {
  const message = payload(WelcomeSchema, frame);
  const { heartbeatIntervalMs, idleTimeoutMs, maxTopics, maxFrameBytes } = message;
  return {
    kind: "welcome",
    connectionId: need(message.connectionId, "connection_id"),
    heartbeatIntervalMs,
    idleTimeoutMs,
    maxTopics,
    maxFrameBytes,
    serverTimeMs: ms(message.serverTime),
    tokenExpireTimeMs: ms(message.tokenExpireTime),
  };
}

function subscribed(frame: KhalaFrame): frames.Subscribed {
  const message = payload(SubscribedSchema, frame);
  const topic = need(frame.topic, "topic");
  const epoch = need(message.epoch, "epoch");
  const plan = PLANS[message.plan];
  if (plan === undefined) {
    throw new Refusal("invalid_enum", "the plan is not one that this version knows; update this client", {
      field: "plan",
    });
  }
  const [floor, head, fromSeq] = [Number(message.floor), Number(message.head), exact(message.fromSeq, "from_seq")];
  return { kind: "subscribed", topic, epoch, floor, head, plan, fromSeq, chain: message.chain };
}

function heartbeat(frame: KhalaFrame): frames.Heartbeat {
  const message = payload(HeartbeatSchema, frame);
  const heads = message.heads.map(({ topic, head, epoch, sourceAway }) => {
    return { topic, head: Number(head), epoch, sourceAway };
  });
  return { kind: "heartbeat", heads, serverTimeMs: ms(message.serverTime), nonce: Number(message.nonce) };
}

function error(frame: KhalaFrame): frames.ErrorFrame {
  const message = payload(ErrorSchema, frame);
  const { field, retryAfterMs, subscriptionStands, staleCursor: where } = message;
  return {
    kind: "error",
    topic: frame.topic,
    reason: need(message.reasonName, "reason_name"),
    message: message.message,
    field,
    retryAfterMs,
    stale:
      where === undefined
        ? null
        : {
            epoch: where.epoch,
            floor: Number(where.floor),
            head: Number(where.head),
            snapshotAvailable: where.snapshotAvailable,
          },
    chain: where?.chain ?? NO_BYTES,
    subscriptionStands,
  };
}

// --------------------------------------------------------------------------------------------------------- helpers

function payload<Desc extends DescMessage>(schema: Desc, frame: KhalaFrame): MessageShape<Desc> {
  return parse(schema, frame.payloadBytes, "payload_mismatch", "payload_bytes");
}

function parse<Desc extends DescMessage>(
  schema: Desc,
  data: Uint8Array,
  reason: string,
  field = "",
): MessageShape<Desc> {
  try {
    return fromBinary(schema, data);
  } catch {
    throw new Refusal(reason, `the bytes are not a ${schema.name}; see the protocol's proto files`, { field });
  }
}

function need<T>(value: T, field: string): T {
  if (!value) throw new Refusal("missing_field", `${field} must be set`, { field });
  return value;
}

// A seq must be exact if the client counts on from it. Above 2^53 - 1, a number is not: that is after 285,000 years of
// 1,000 events a second.
function exact(value: bigint, field: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new Refusal("invalid_value", `${field} is above 2^53 - 1; follow this topic with another client`, { field });
  }
  return Number(value);
}

function ms(time: Timestamp | undefined): number {
  return time === undefined ? 0 : timestampMs(time);
}
