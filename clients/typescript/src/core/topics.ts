/**
 * One topic of a session: exactly-once application, holes, stale cursors.
 *
 * The rule that matters: an event is applied only when its seq is `appliedSeq + 1` in the cursor's own epoch. An event
 * at or below `appliedSeq` is a repetition and is dropped; one above is a hole, and the topic is subscribed again from
 * `appliedSeq`.
 */

import { waitMs } from "./backoff.js";
import { actionOf, type ClientAction } from "./catalogue.js";
import type { Apply, Chains, Command, Instant } from "./commands.js";
import {
  NO_BYTES,
  type CaughtUp,
  type Cursor,
  type ErrorFrame,
  type Event,
  type Snapshot,
  type Subscribed,
  type TopicFrame,
  type TopicHead,
} from "./frames.js";

/**
 * Where a topic stands on the current connection.
 *
 * idle              to be subscribed when the connection and the token allow
 * asked             Subscribe is out; what arrives before SUBSCRIBED belongs to an earlier one
 * following         SUBSCRIBED came
 * awaitingSnapshot  SUBSCRIBED with a snapshot plan came
 * waiting           refused for now; asked again at `retryAtMs`
 * failed            refused for good
 */
export type Phase = "idle" | "asked" | "following" | "awaitingSnapshot" | "waiting" | "failed";

/** What the session does with the topic after a frame: subscribe again at once, or after a delay, or reconnect. */
export type Next = "nothing" | "ask" | "retry" | "reconnect";

/** Commands, and what follows from them. */
export type Outcome = readonly [commands: readonly Command[], next: Next];

const NOTHING: Outcome = [[], "nothing"];

// What a topic's error asks for, by the catalogue's action. A topic with any other action is refused for good.
const ON_ERROR: Readonly<Partial<Record<ClientAction, Next>>> = {
  resync: "ask",
  retry: "retry",
  reconnect: "reconnect",
  reauthenticate: "reconnect",
  reread: "retry",
};

/**
 * Frames that a session has taken from gateways. `replayed` are applied frames that were history: they came between
 * SUBSCRIBED and CAUGHT_UP. `repaired` are those that came because something had been missing. `repeated` were dropped.
 */
export interface Counts {
  applied: number;
  replayed: number;
  repaired: number;
  repeated: number;
  unknown: number;
}

/** State of one topic. `cursor`: how far it has been handed out to be applied; null before the first SUBSCRIBED. */
export class Topic {
  readonly name: string;
  readonly takesSnapshots: boolean;
  cursor: Cursor | null;
  phase: Phase = "idle";
  retryAtMs = 0;
  readonly #chains: Chains;
  readonly #counts: Counts;
  readonly #maxSnapshotBytes: number;
  #attempts = 0;
  #repairs = 0;
  // The applied seq at the last heartbeat that reported a newer head; -1 when none did.
  #behindAt = -1;
  // The cursor after the announced snapshot; until it is applied, there is no cursor.
  #snapshotAt: Cursor | null = null;
  // Its parts that have come. None of them counts before the last one is there.
  #parts: Uint8Array[] = [];
  #ofParts = 0;
  #replaying = false;
  #repairing = false;

  constructor(
    name: string,
    cursor: Cursor | null,
    chains: Chains,
    counts: Counts,
    takesSnapshots: boolean,
    maxSnapshotBytes: number,
  ) {
    this.name = name;
    this.cursor = cursor;
    this.#chains = chains;
    this.#counts = counts;
    this.takesSnapshots = takesSnapshots;
    this.#maxSnapshotBytes = maxSnapshotBytes;
  }

  /** Handle a frame about the topic. */
  frame(frame: TopicFrame): Outcome {
    switch (frame.kind) {
      case "event":
        return this.#event(frame);
      case "snapshot":
        return this.#snapshot(frame);
      case "subscribed":
        return this.#subscribed(frame);
      case "caughtUp":
        return this.#caughtUp(frame);
      case "error":
        return this.#refused(frame);
    }
  }

  /** Note that Subscribe has been sent. */
  asked(): void {
    this.phase = "asked";
    this.#behindAt = -1;
    this.#parts = [];
  }

  /** Note that the connection is gone. */
  cut(): void {
    if (this.phase !== "failed") this.phase = "idle";
    this.#behindAt = -1;
    this.#parts = [];
  }

  /** Handle a head in a HEARTBEAT: being behind twice in a row without progress means that a tail was missed. */
  head(head: TopicHead): Next {
    if (this.phase !== "following" || this.cursor === null) return "nothing";
    if (head.epoch !== this.cursor.epoch || head.head <= this.cursor.appliedSeq) {
      this.#behindAt = -1;
      return "nothing";
    }
    if (this.#behindAt === this.cursor.appliedSeq) return this.#missing();
    this.#behindAt = this.cursor.appliedSeq;
    return "nothing";
  }

  /** Return what to do instead of `then` if asking at once hasn't helped: ask later, and then another gateway. */
  patience(then: Next, maxRepairs: number): Next {
    if (then !== "ask" || this.#repairs <= maxRepairs) return then;
    this.#repairs = 0;
    return this.#attempts < maxRepairs ? "retry" : "reconnect";
  }

  /** Count one more failed attempt. Returns how long to wait before the next, in ms. */
  backOff(at: Instant, retryAfterMs: number): number {
    const delayMs = Math.max(waitMs(this.#attempts, at.jitter), retryAfterMs);
    this.#attempts += 1;
    return delayMs;
  }

  /** Ask for the topic again at `untilMs`. */
  wait(untilMs: number): void {
    this.phase = "waiting";
    this.retryAtMs = untilMs;
  }

  /** Continue from `cursor`, where the store actually is. */
  rewind(cursor: Cursor | null): Next {
    this.cursor = cursor;
    return this.#rests() ? "nothing" : this.#repair();
  }

  // SUBSCRIBED: delivery starts at `fromSeq + 1` in `epoch`, which must continue what was applied.
  #subscribed(frame: Subscribed): Outcome {
    if (this.#rests()) return NOTHING;
    if (this.#answersAnother(frame)) return [[], this.#repair()];
    if (this.cursor !== null && frame.epoch !== this.cursor.epoch) {
      this.cursor = null;
      return [[{ kind: "resync", topic: this.name, reason: "epoch_mismatch" }], this.#repair()];
    }
    this.#parts = [];
    const chain = frame.fromSeq > 0 ? frame.chain : this.#chains.start(this.name);
    const start = { epoch: frame.epoch, appliedSeq: frame.fromSeq, chain };
    this.#replaying = true;
    if (frame.plan === "snapshot") {
      this.phase = "awaitingSnapshot";
      this.#snapshotAt = start;
    } else {
      this.phase = "following";
      this.cursor ??= start;
    }
    return NOTHING;
  }

  // Whether it is the answer to an earlier Subscribe, which had another cursor: delivery would leave something out, or
  // begin with a snapshot although there is a cursor.
  #answersAnother({ epoch, floor, plan, fromSeq }: Subscribed): boolean {
    const { cursor } = this;
    if (cursor === null) return plan !== "snapshot" && fromSeq > floor;
    return epoch === cursor.epoch && (plan === "snapshot" || fromSeq > cursor.appliedSeq);
  }

  // SNAPSHOT: the whole state as of `seq` or its next part, accepted only if a snapshot was announced.
  #snapshot(frame: Snapshot): Outcome {
    if (this.phase !== "awaitingSnapshot" || this.#snapshotAt === null) return NOTHING;
    if (frame.seq !== this.#snapshotAt.appliedSeq || !this.#isNext(frame)) return [[], this.#repair()];
    this.#ofParts = frame.parts;
    this.#parts.push(frame.payload);
    if (this.#parts.reduce((size, part) => size + part.length, 0) > this.#maxSnapshotBytes) return this.#tooLarge();
    if (frame.part < frame.parts) return NOTHING;
    const payload = joined(this.#parts);
    this.#parts = [];
    this.phase = "following";
    return [[this.#apply({ ...frame, payload }, this.#snapshotAt, NO_BYTES)], "nothing"];
  }

  #isNext({ part, parts }: Snapshot): boolean {
    if (this.#parts.length > 0) return part === this.#parts.length + 1 && parts === this.#ofParts;
    return part === Math.min(parts, 1);
  }

  // The topic fails for good: a new snapshot would be as large.
  #tooLarge(): Outcome {
    this.#parts = [];
    this.phase = "failed";
    const message = `the topic's snapshot is larger than ${this.#maxSnapshotBytes} bytes; follow it without snapshots`;
    return [[{ kind: "topicFailed", topic: this.name, reason: "payload_too_large", message }], "nothing"];
  }

  // EVENT: the next one is applied, an old one is dropped, one too far ahead is a hole.
  #event(frame: Event): Outcome {
    const before = this.cursor;
    if (this.phase !== "following" || before === null) return NOTHING;
    if (frame.seq <= before.appliedSeq) {
      this.#counts.repeated += 1;
      return NOTHING;
    }
    if (frame.seq > before.appliedSeq + 1) return [[], this.#missing()];
    const chain = before.chain.length > 0 ? this.#chains.after(before.chain, frame.payload) : NO_BYTES;
    return [[this.#apply(frame, { epoch: before.epoch, appliedSeq: frame.seq, chain }, before.chain)], "nothing"];
  }

  // CAUGHT_UP: true only if everything up to its seq has been applied; otherwise events are missing.
  #caughtUp(frame: CaughtUp): Outcome {
    if (this.phase !== "following" || this.cursor === null) return NOTHING;
    if (frame.seq > this.cursor.appliedSeq) return [[], this.#missing()];
    this.#attempts = 0;
    this.#replaying = this.#repairing = false;
    return [[{ kind: "live", topic: this.name, seq: this.cursor.appliedSeq }], "nothing"];
  }

  // ERROR about this topic: the gateway no longer serves it on this connection.
  #refused(frame: ErrorFrame): Outcome {
    if (this.phase === "idle" || this.phase === "failed") return NOTHING;
    const action = actionOf(frame.reason);
    const next = ON_ERROR[action];
    if (next === undefined) {
      this.phase = "failed";
      const { reason, message } = frame;
      return [[{ kind: "topicFailed", topic: this.name, reason, message }], "nothing"];
    }
    this.phase = "idle";
    if (action !== "resync") return [[], next];
    const hadState = this.cursor !== null;
    this.cursor = null;
    return [hadState ? [{ kind: "resync", topic: this.name, reason: frame.reason }] : [], this.#repair()];
  }

  #apply(frame: Event | Snapshot, cursor: Cursor, follows: Uint8Array): Apply {
    this.cursor = cursor;
    this.#repairs = this.#attempts = 0;
    this.#behindAt = -1;
    this.#counts.applied += 1;
    if (this.#replaying) this.#counts.replayed += 1;
    if (this.#repairing) this.#counts.repaired += 1;
    const { payload, schemaVersion } = frame;
    return {
      kind: "apply",
      topic: this.name,
      cursor,
      payload,
      schemaVersion,
      snapshot: frame.kind === "snapshot",
      follows,
    };
  }

  #missing(): Next {
    this.#repairing = true;
    return this.#repair();
  }

  #repair(): Next {
    this.phase = "idle";
    this.#parts = [];
    this.#repairs += 1;
    return "ask";
  }

  #rests(): boolean {
    return this.phase === "idle" || this.phase === "waiting" || this.phase === "failed";
  }
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
