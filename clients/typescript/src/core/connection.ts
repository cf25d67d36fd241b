/** The connections of a session, one after the other: each with a token, and given up when it is of no use. */

import { actionOf, isFinal } from "./catalogue.js";
import type { Command, Instant, SessionLimits } from "./commands.js";
import { Deadlines, Reconnecting } from "./deadlines.js";
import { PROTOCOL_VERSION, SCHEMA_VERSION, type ClientFrame, type ErrorFrame, type Welcome } from "./frames.js";
import { after, allows, type State, type Step } from "./states.js";
import type { Subscriptions } from "./subscriptions.js";
import { Tokens } from "./tokens.js";

const REVOKED = "token_revoked";

/**
 * The present connection. Commands go to `out`; `generation` tells its reports from those of earlier ones. `endReason`
 * is why the gateway will close it, once it has said so.
 */
export class Connection {
  state: State = "idle";
  generation = 0;
  endReason = "";
  readonly tokens: Tokens;
  readonly deadlines: Deadlines;
  readonly reconnecting = new Reconnecting();
  readonly #topics: Subscriptions;
  readonly #out: Command[];

  constructor(topics: Subscriptions, limits: SessionLimits, out: Command[]) {
    this.tokens = new Tokens(limits);
    this.deadlines = new Deadlines(limits);
    this.#topics = topics;
    this.#out = out;
  }

  /** Whether `step` is possible now. */
  may(step: Step): boolean {
    return allows(this.state, step);
  }

  // ------------------------------------------------------------------------------------------------------------- up

  /** `step` makes a connection wanted. */
  want(step: Step, at: Instant): void {
    this.#go(step);
    this.dial(at);
  }

  /** Ask for a connection, or first for the token that it needs. */
  dial(at: Instant): void {
    if (!this.tokens.usable(at.nowMs)) {
      this.needToken();
      return;
    }
    this.#go("dial");
    this.generation += 1;
    const delayMs = this.reconnecting.delayMs(at.nowMs);
    this.deadlines.dialed(at.nowMs, delayMs);
    this.#out.push({ kind: "connect", generation: this.generation, delayMs });
  }

  /** It is open: say Hello. */
  greet(deviceId: string, clientBuildId: string, at: Instant): void {
    this.#go("connected");
    this.deadlines.greeted(at.nowMs);
    const token = this.tokens.show() ?? "";
    const [protocolVersion, schemaVersion] = [PROTOCOL_VERSION, SCHEMA_VERSION];
    this.send({ kind: "hello", token, deviceId, clientBuildId, protocolVersion, schemaVersion });
  }

  /** The gateway takes it: it can carry topics. */
  welcome(frame: Welcome, at: Instant): void {
    this.#go("welcomed");
    this.deadlines.welcomed(at.nowMs, frame.heartbeatIntervalMs, frame.idleTimeoutMs);
    this.reconnecting.reschedule(0);
    // Both times are the gateway's, so their difference needs no clock of ours.
    this.tokens.welcomed(frame.tokenExpireTimeMs - frame.serverTimeMs, at.nowMs);
    this.useToken();
  }

  // -------------------------------------------------------------------------------------------------- while it lasts

  /** Send `frame` on it. */
  send(frame: ClientFrame): void {
    this.#out.push({ kind: "send", generation: this.generation, frame });
  }

  /** Ask for a token for all topics that are followed. */
  needToken(): void {
    const need = this.tokens.ask(this.#topics.wanted);
    if (need !== null) this.#out.push(need);
  }

  /** Show the token, if this connection hasn't seen it. */
  useToken(): void {
    const token = this.tokens.show();
    if (token !== null) this.send({ kind: "refreshToken", token });
  }

  /** Subscribe those of `names` that wait for it; for those that the token lacks, ask for one that has them. */
  ask(names: readonly string[]): void {
    if (this.state !== "open" || !this.tokens.held) return;
    const grants = (topic: string): boolean => this.tokens.grants(topic);
    if (this.#topics.lacking(names, grants)) this.needToken();
    for (const request of this.#topics.requests(names, grants)) this.send(request);
  }

  /** Time has passed on an open connection. */
  keepUp(at: Instant): void {
    const nonce = this.deadlines.ping(at.nowMs);
    if (nonce !== null) this.send({ kind: "ping", nonce });
    if (at.nowMs >= this.tokens.refreshAtMs) this.needToken();
    this.ask(this.#topics.wake(at.nowMs));
  }

  // ----------------------------------------------------------------------------------------------------------- down

  /** The gateway will close it, and says why. What that means is decided when it closes. */
  refused(frame: ErrorFrame, at: Instant): void {
    this.endReason = frame.reason;
    this.reconnecting.hold(at.nowMs + frame.retryAfterMs);
  }

  /** It is of no use: drop it and connect again. */
  giveUp(at: Instant, reason = "", retryAfterMs = 0): void {
    this.#out.push({ kind: "disconnect", generation: this.generation });
    this.ended(at, reason, "", retryAfterMs);
  }

  /** It is over: back off and connect again, unless that can't help. */
  ended(at: Instant, reason: string, message: string, retryAfterMs: number): void {
    this.#forget();
    // The session may live and only the token be dead: another one is asked for, once.
    if (reason !== "" && (isFinal(reason) || (reason === REVOKED && this.tokens.revokedAgain()))) {
      this.fail(reason, message);
      return;
    }
    if (reason !== "" && actionOf(reason) === "reauthenticate") this.tokens.expired();
    this.reconnecting.failed(at, retryAfterMs);
    this.want("lost", at);
  }

  /** Drop it, if there is one, and connect no more until the session is resumed, or ever. */
  leave(step: Step): void {
    if (this.may("lost")) this.#out.push({ kind: "disconnect", generation: this.generation });
    this.#forget();
    this.#go(step);
  }

  /** Trying again can't help: the session is over. */
  fail(reason: string, message: string): void {
    this.leave("stop");
    this.#out.push({ kind: "sessionFailed", reason, message });
  }

  #forget(): void {
    this.generation += 1;
    this.endReason = "";
    this.deadlines.cut();
    this.tokens.cut();
    this.#topics.cut();
  }

  #go(step: Step): void {
    this.state = after(this.state, step);
  }
}
