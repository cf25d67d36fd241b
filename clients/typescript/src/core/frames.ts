/** The values of all frames in both directions, as the session sees them. `wire` maps them to bytes and back. */

export const PROTOCOL_VERSION = 1;
export const SCHEMA_VERSION = 1;
export const NO_BYTES = new Uint8Array(0);

/** How a subscription is served up to the head at the time of subscribing. */
export type Plan = "live" | "replay" | "snapshot";

/**
 * How far a topic has been applied, and in which lineage. `chain` is the chain value at `appliedSeq`, 32 bytes; empty
 * if it is not known or the topic has none.
 */
export interface Cursor {
  readonly epoch: string;
  readonly appliedSeq: number;
  readonly chain: Uint8Array;
}

/** Where a topic stands: lineage, lowest resumable cursor, newest seq. */
export interface TopicState {
  readonly epoch: string;
  readonly floor: number;
  readonly head: number;
  readonly snapshotAvailable: boolean;
}

// ----------------------------------------------------------------------------------------------- client to gateway

/** First frame of every connection. */
export interface Hello {
  readonly kind: "hello";
  readonly token: string;
  readonly deviceId: string;
  readonly clientBuildId: string;
  readonly protocolVersion: number;
  readonly schemaVersion: number;
}

/**
 * Start receiving topics, each from its cursor on, or from its start when it has no cursor. `takesSnapshots` are the
 * topics of which the client takes any snapshot, also in parts.
 */
export interface Subscribe {
  readonly kind: "subscribe";
  readonly topics: readonly (readonly [topic: string, cursor: Cursor | null])[];
  readonly takesSnapshots: readonly string[];
}

/** Stop receiving topics. */
export interface Unsubscribe {
  readonly kind: "unsubscribe";
  readonly topics: readonly string[];
}

/** A new token of the same session. */
export interface RefreshToken {
  readonly kind: "refreshToken";
  readonly token: string;
}

/** Asks for a Heartbeat with the same nonce. */
export interface Ping {
  readonly kind: "ping";
  readonly nonce: number;
}

export type ClientFrame = Hello | Subscribe | Unsubscribe | RefreshToken | Ping;

// ----------------------------------------------------------------------------------------------- gateway to client

/** Answer to Hello. Times are milliseconds since the Unix epoch, by the gateway's clock. */
export interface Welcome {
  readonly kind: "welcome";
  readonly connectionId: string;
  readonly heartbeatIntervalMs: number;
  readonly idleTimeoutMs: number;
  readonly maxTopics: number;
  readonly maxFrameBytes: number;
  readonly serverTimeMs: number;
  readonly tokenExpireTimeMs: number;
}

/**
 * Answer to one topic of Subscribe; the first event is `fromSeq + 1`. `chain` is the chain value at `fromSeq` if a
 * snapshot of a topic with a chain follows; else empty.
 */
export interface Subscribed {
  readonly kind: "subscribed";
  readonly topic: string;
  readonly epoch: string;
  readonly floor: number;
  readonly head: number;
  readonly plan: Plan;
  readonly fromSeq: number;
  readonly chain: Uint8Array;
}

/** One element of a topic, as the source stored it. */
export interface Event {
  readonly kind: "event";
  readonly topic: string;
  readonly seq: number;
  readonly payload: Uint8Array;
  readonly schemaVersion: number;
}

/**
 * State of a topic as of `seq`; events continue at `seq + 1`. It is `part` of `parts`, counted from 1; both are 0 for a
 * whole snapshot.
 */
export interface Snapshot {
  readonly kind: "snapshot";
  readonly topic: string;
  readonly seq: number;
  readonly payload: Uint8Array;
  readonly schemaVersion: number;
  readonly part: number;
  readonly parts: number;
}

/** Everything that was in the topic when it was subscribed, up to `seq`, has been sent. */
export interface CaughtUp {
  readonly kind: "caughtUp";
  readonly topic: string;
  readonly seq: number;
}

/** Where a subscribed topic stands, as far as the gateway knows; `sourceAway`: the gateway can't ask at present. */
export interface TopicHead {
  readonly topic: string;
  readonly head: number;
  readonly epoch: string;
  readonly sourceAway: boolean;
}

/** The connection is alive. `nonce` is that of the Ping that it answers, else 0. */
export interface Heartbeat {
  readonly kind: "heartbeat";
  readonly heads: readonly TopicHead[];
  readonly serverTimeMs: number;
  readonly nonce: number;
}

/** Something was refused: one topic, or, with an empty `topic`, the connection, which closes next. */
export interface ErrorFrame {
  readonly kind: "error";
  readonly topic: string;
  readonly reason: string;
  readonly message: string;
  readonly field: string;
  readonly retryAfterMs: number;
  /** Where the topic stands, for a stale cursor. */
  readonly stale: TopicState | null;
  /** The topic's chain value at the cursor's seq, if it differs from the cursor's. */
  readonly chain: Uint8Array;
  /** Whether an earlier subscription to the topic continues. */
  readonly subscriptionStands: boolean;
}

/** The gateway will close; the client waits `reconnectAfterMs` before it connects again. */
export interface Draining {
  readonly kind: "draining";
  readonly reconnectAfterMs: number;
}

/** A frame of a kind that this version does not know: counted and ignored. `number` is the number of the kind. */
export interface UnknownFrame {
  readonly kind: "unknown";
  readonly number: number;
}

export type TopicFrame = Event | Snapshot | Subscribed | CaughtUp | ErrorFrame;
export type ServerFrame = TopicFrame | Welcome | Heartbeat | Draining | UnknownFrame;
