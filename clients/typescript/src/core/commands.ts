/** What a session takes and what it asks for: the vocabulary between `Session` and its driver. */

import { NO_BYTES, type ClientFrame, type Cursor } from "./frames.js";

/** What a pure machine can't know: a clock that never goes back, in ms, and one random number in [0, 1). */
export interface Instant {
  readonly nowMs: number;
  readonly jitter: number;
}

/**
 * A sync token: its text, what it grants (topics, and grants of owners), and how long it remains valid. `refused` holds
 * what was requested and not granted, each with its reason.
 */
export interface SyncToken {
  readonly text: string;
  readonly topics: ReadonlySet<string>;
  readonly expiresInMs: number;
  readonly refused: ReadonlyMap<string, string>;
}

/** Named limits of one client. All except the counts are in milliseconds. */
export interface SessionLimits {
  readonly connectTimeoutMs: number;
  readonly helloTimeoutMs: number;
  /** The connection is dead after this many heartbeat intervals without a frame. */
  readonly silentHeartbeats: number;
  /** A new token is requested when this fraction of the old one's life is over. */
  readonly refreshAtFraction: number;
  /** A token that is about to expire is not worth a connection. */
  readonly tokenMarginMs: number;
  /** A new token is assumed to live at least this long until the gateway says how long it does. */
  readonly minTokenLifeMs: number;
  /** After this many tokens in a row that gateways refused, the session ends: what gives the tokens is wrong. */
  readonly maxRefusedTokens: number;
  /**
   * After this many repairs of one topic without progress, the client asks for it later; after this many of those, it
   * asks another gateway.
   */
  readonly maxRepairs: number;
  /** Maximum size of a snapshot taken in parts, all parts together, in bytes. */
  readonly maxSnapshotBytes: number;
  /** Topics, and grants of owners, that the client asks a token for: a token can name no more. */
  readonly maxTopics: number;
  /** Topics in one Subscribe frame. */
  readonly subscribeBatch: number;
}

export const SESSION_LIMITS: SessionLimits = {
  connectTimeoutMs: 10_000,
  helloTimeoutMs: 10_000,
  silentHeartbeats: 1.5,
  refreshAtFraction: 0.8,
  tokenMarginMs: 5_000,
  minTokenLifeMs: 30_000,
  maxRefusedTokens: 10,
  maxRepairs: 3,
  maxSnapshotBytes: 16 * 1024 * 1024,
  maxTopics: 128,
  subscribeBatch: 128,
};

/** Chain values of topics: what binds a cursor to what was applied. */
export interface Chains {
  /** The value before the topic's first event; empty for a topic without a chain. */
  start(topic: string): Uint8Array;
  /** The value after one more event. */
  after(chain: Uint8Array, payload: Uint8Array): Uint8Array;
}

/** For a client that doesn't bind its cursors to content. */
export const NO_CHAINS: Chains = { start: () => NO_BYTES, after: () => NO_BYTES };

// ------------------------------------------------------------------------------------------------------- commands

/** Open a connection after `delayMs`; report `connected` or `disconnected` with this `generation`. */
export interface Connect {
  readonly kind: "connect";
  readonly generation: number;
  readonly delayMs: number;
}

/** Drop the connection (or the attempt) of `generation`. Its later reports are ignored. */
export interface Disconnect {
  readonly kind: "disconnect";
  readonly generation: number;
}

/** Send `frame` on the connection of `generation`. */
export interface Send {
  readonly kind: "send";
  readonly generation: number;
  readonly frame: ClientFrame;
}

/** Get a sync token for `topics`; answer with `token` or `noToken`. At most one request is outstanding at a time. */
export interface NeedToken {
  readonly kind: "needToken";
  readonly topics: readonly string[];
}

/**
 * Apply one element and persist `cursor`, both or neither. `snapshot`: it replaces the topic's whole state. When the
 * store fails, report `rewind` with the cursor that it actually holds. `follows` is the chain value that the element
 * continues; empty if it is not known.
 */
export interface Apply {
  readonly kind: "apply";
  readonly topic: string;
  readonly cursor: Cursor;
  readonly payload: Uint8Array;
  readonly schemaVersion: number;
  readonly snapshot: boolean;
  readonly follows: Uint8Array;
}

/** Drop the state and the cursor of `topic`: it can't be continued and will be sent again from its start. */
export interface Resync {
  readonly kind: "resync";
  readonly topic: string;
  readonly reason: string;
}

/** `topic` has been applied up to the head that it had when it was subscribed. */
export interface Live {
  readonly kind: "live";
  readonly topic: string;
  readonly seq: number;
}

/** `topic` can't be obtained and is no longer tried. */
export interface TopicFailed {
  readonly kind: "topicFailed";
  readonly topic: string;
  readonly reason: string;
  readonly message: string;
}

/** The session has stopped because retrying can't help. */
export interface SessionFailed {
  readonly kind: "sessionFailed";
  readonly reason: string;
  readonly message: string;
}

export type Command = Connect | Disconnect | Send | NeedToken | Apply | Resync | Live | TopicFailed | SessionFailed;
