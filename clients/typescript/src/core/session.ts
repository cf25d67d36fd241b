/**
 * The client half of Khala, across any number of connections: what is applied is exactly the topic, in order, once.
 *
 * The driver of a session reports what happened and carries out the commands that each call returns, in order:
 *
 *     start · connected · frame · disconnected · timer · token · noToken · suspended · resumed · rewind · stop
 *
 * and calls `timer` no later than at `wakeAtMs`. Every connection has a generation. Reports from a connection of an
 * earlier generation are dropped, so a late socket can't disturb the current one. Reports in a state that does not
 * expect them (`states`) are dropped too.
 */

import { actionOf, isFinal, type ClientAction } from "./catalogue.js";
import {
  NO_CHAINS,
  SESSION_LIMITS,
  type Chains,
  type Command,
  type Instant,
  type SessionLimits,
  type SyncToken,
} from "./commands.js";
import { Connection } from "./connection.js";
import { NEVER } from "./deadlines.js";
import type { Cursor, Heartbeat, ServerFrame, TopicFrame } from "./frames.js";
import { isRunning, type State } from "./states.js";
import { Subscriptions } from "./subscriptions.js";
import type { Counts, Next, Topic } from "./topics.js";

// The actions of the reasons for which control gives no token because it grants nothing of what was asked for.
const NOT_GRANTED: ReadonlySet<ClientAction> = new Set(["fix_request", "give_up"]);

/** See the module. `state`, `generation`, `wakeAtMs`, `counts` and `cursor()` may be read at any time. */
export class Session {
  readonly #deviceId: string;
  readonly #clientBuildId: string;
  readonly #limits: SessionLimits;
  readonly #out: Command[] = [];
  readonly #topics: Subscriptions;
  readonly #connection: Connection;

  /** `chains` binds cursors to what was applied; without it they are only numbers. `grants`: see `Tokens`. */
  constructor(
    deviceId: string,
    clientBuildId: string,
    limits: SessionLimits = SESSION_LIMITS,
    chains: Chains = NO_CHAINS,
    grants: Iterable<string> = [],
  ) {
    this.#deviceId = deviceId;
    this.#clientBuildId = clientBuildId;
    this.#limits = limits;
    this.#topics = new Subscriptions(limits, chains);
    this.#connection = new Connection(this.#topics, limits, this.#out, grants);
  }

  /** Where the session stands. */
  get state(): State {
    return this.#connection.state;
  }

  /** Generation of the current connection. */
  get generation(): number {
    return this.#connection.generation;
  }

  /** Counts of what has come so far. */
  get counts(): Readonly<Counts> {
    return this.#topics.counts;
  }

  // ------------------------------------------------------------------------------------------------- what one wants

  /** Begin: connect as soon as there is a token. */
  start(at: Instant): Command[] {
    if (this.#connection.may("start")) this.#connection.want("start", at);
    return this.#commands();
  }

  /** End for good. */
  stop(): Command[] {
    this.#connection.leave("stop");
    return this.#commands();
  }

  /**
   * Follow `topic` from the persisted `cursor` on, or from its start. Ignored if the topic is already followed.
   * `takesSnapshots`: the topic may begin with a snapshot of any size, a run with its own in place of its events.
   * Without it, only lists begin with a snapshot, of a single frame.
   */
  subscribe(topic: string, cursor: Cursor | null, _at: Instant, takesSnapshots = false): Command[] {
    if (this.#topics.follow(topic, cursor, takesSnapshots)) {
      if (!this.#connection.tokens.hasRoom(this.#topics.wanted)) {
        this.#out.push(...this.#topics.refuse(topic, "too_many_topics"));
      } else if (this.state === "noToken") this.#connection.needToken();
      this.#connection.ask([topic]);
    }
    return this.#commands();
  }

  /** Whether one token can have all of `topics`. */
  hasRoom(topics: readonly string[]): boolean {
    return this.#connection.tokens.hasRoom(topics);
  }

  /** Stop following `topic`; its cursor stays persisted. */
  unsubscribe(topic: string): Command[] {
    if (this.#topics.unfollow(topic) && this.state === "open") {
      this.#connection.send({ kind: "unsubscribe", topics: [topic] });
    }
    return this.#commands();
  }

  /** Return how far `topic` has been handed out to be applied. */
  cursor(topic: string): Cursor | null {
    return this.#topics.get(topic)?.cursor ?? null;
  }

  /** Drop the connection and wait for `resumed`: the device goes to sleep or offline. */
  suspended(): Command[] {
    if (this.#connection.may("suspend")) this.#connection.leave("suspend");
    return this.#commands();
  }

  /** Connect as soon as the gateway allows, whatever failed before: the device is back. */
  resumed(at: Instant): Command[] {
    if (this.#connection.may("resume")) {
      this.#connection.reconnecting.woke();
      this.#connection.want("resume", at);
    }
    return this.#commands();
  }

  // --------------------------------------------------------------------------------------------------- what happens

  /** Send Hello: the connection of `generation` is open. */
  connected(generation: number, at: Instant): Command[] {
    if (generation === this.generation && this.#connection.may("connected")) {
      this.#connection.greet(this.#deviceId, this.#clientBuildId, at);
    }
    return this.#commands();
  }

  /**
   * Handle a connection of `generation` that has ended or could not be made. `reason` is from the catalogue, if the
   * driver knows one (a close frame).
   */
  disconnected(generation: number, at: Instant, reason = "", message = "", retryAfterMs = 0): Command[] {
    const connection = this.#connection;
    if (generation === this.generation && connection.may("lost")) {
      connection.ended(at, connection.endReason || reason, message, retryAfterMs);
    }
    return this.#commands();
  }

  /** Handle a frame that came on the connection of `generation`. */
  frame(generation: number, frame: ServerFrame, at: Instant): Command[] {
    const connection = this.#connection;
    if (generation !== this.generation || (this.state !== "greeting" && this.state !== "open")) return [];
    if (this.state === "open") connection.deadlines.heard(at.nowMs);
    switch (frame.kind) {
      case "event":
      case "snapshot":
      case "subscribed":
      case "caughtUp":
        this.#topicFrame(frame, at);
        break;
      case "error":
        if (frame.topic !== "") this.#topicFrame(frame, at);
        else connection.refused(frame, at);
        break;
      case "heartbeat":
        this.#heartbeat(frame, at);
        break;
      case "welcome":
        if (connection.may("welcomed")) {
          connection.welcome(frame, at);
          connection.ask(this.#topics.names);
        }
        break;
      case "draining":
        connection.reconnecting.reschedule(at.nowMs + frame.reconnectAfterMs);
        break;
      case "unknown":
        this.#topics.counts.unknown += 1;
        break;
    }
    return this.#commands();
  }

  /** Do what the passing of time requires. Harmless at any time, due at `wakeAtMs`. */
  timer(at: Instant): Command[] {
    const connection = this.#connection;
    if (!isRunning(this.state)) return [];
    if (at.nowMs >= connection.tokens.retryAtMs) connection.needToken();
    if (at.nowMs >= connection.deadlines.giveUpAtMs) connection.giveUp(at, connection.endReason);
    if (this.state === "open") connection.keepUp(at);
    return this.#commands();
  }

  /** Answer to NeedToken. */
  token(token: SyncToken, at: Instant): Command[] {
    if (this.state === "stopped") return [];
    if (this.state === "open" && this.#connection.tokens.passedOver(token, this.#topics.carried)) {
      this.#connection.needToken();
      return this.#commands();
    }
    for (const topic of [...this.#connection.tokens.granted(token, at.nowMs)].sort()) {
      this.#out.push(...this.#topics.refuse(topic, token.refused.get(topic) ?? "forbidden_topic"));
    }
    if (this.state === "noToken") {
      this.#connection.dial(at);
    } else if (this.state === "open") {
      this.#connection.useToken();
      this.#connection.ask(this.#topics.names);
    }
    return this.#commands();
  }

  /**
   * Answer to NeedToken: no token is available. Asks again if the catalogue says that it helps: after the backoff or
   * `retryAfterMs`, whichever is longer.
   */
  noToken(reason: string, message: string, at: Instant, retryAfterMs = 0): Command[] {
    if (this.state === "stopped") return [];
    const { tokens } = this.#connection;
    tokens.refused(at, retryAfterMs);
    if (NOT_GRANTED.has(actionOf(reason)) && tokens.dropGrants()) this.#connection.needToken();
    else if (isFinal(reason) || actionOf(reason) === "reauthenticate") this.#connection.fail(reason, message);
    return this.#commands();
  }

  /** Have everything after `cursor` sent again: an Apply or Resync failed, and the store is at `cursor`. */
  rewind(topic: string, cursor: Cursor | null, at: Instant): Command[] {
    const known = this.#topics.get(topic);
    if (known !== undefined) this.#followUp(known, known.rewind(cursor), at);
    return this.#commands();
  }

  /** When `timer` is due; null when there is nothing to wait for. */
  get wakeAtMs(): number | null {
    if (!isRunning(this.state)) return null;
    const { tokens, deadlines } = this.#connection;
    let soonest = Math.min(tokens.retryAtMs, deadlines.giveUpAtMs);
    if (this.state === "open") {
      soonest = Math.min(soonest, deadlines.pingAtMs, tokens.refreshAtMs, this.#topics.retryAtMs);
    }
    return soonest === NEVER ? null : soonest;
  }

  // --------------------------------------------------------------------------------------------------------- frames

  #heartbeat(frame: Heartbeat, at: Instant): void {
    this.#connection.reconnecting.succeeded();
    for (const head of frame.heads) {
      const topic = this.#topics.get(head.topic);
      if (topic !== undefined && this.state === "open") this.#followUp(topic, topic.head(head), at);
    }
  }

  #topicFrame(frame: TopicFrame, at: Instant): void {
    const topic = this.#topics.get(frame.topic);
    if (topic === undefined || this.state !== "open") return;
    const [commands, then] = topic.frame(frame);
    const first = commands[0]?.kind;
    if (first === "apply" || first === "live") this.#connection.reconnecting.succeeded();
    this.#out.push(...commands);
    if (frame.kind === "snapshot" && first === "topicFailed") {
      this.#connection.send({ kind: "unsubscribe", topics: [topic.name] });
    }
    this.#followUp(topic, then, at, frame.kind === "error" ? frame.retryAfterMs : 0);
  }

  #followUp(topic: Topic, then: Next, at: Instant, retryAfterMs = 0): void {
    switch (topic.patience(then, this.#limits.maxRepairs)) {
      case "ask":
        this.#connection.ask([topic.name]);
        break;
      case "retry":
        topic.wait(at.nowMs + topic.backOff(at, retryAfterMs));
        break;
      case "reconnect":
        this.#connection.giveUp(at, "", topic.backOff(at, retryAfterMs));
        break;
      case "nothing":
    }
  }

  #commands(): Command[] {
    return this.#out.splice(0);
  }
}
