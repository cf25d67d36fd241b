/** The connections of a session, one after the other. Each has a token and is given up when it is useless. */

import { actionOf, isFinal } from "./catalogue.js";
import type { Command, Instant, SessionLimits } from "./commands.js";
import { Deadlines, Reconnecting } from "./deadlines.js";
import { PROTOCOL_VERSION, SCHEMA_VERSION, type ClientFrame, type ErrorFrame, type Welcome } from "./frames.js";
import { after, allows, type State, type Step } from "./states.js";
import type { Subscriptions } from "./subscriptions.js";
import { Tokens } from "./tokens.js";

const REVOKED = "token_revoked";
const CHECK = "check that what gives the tokens belongs to the gateway's site";

/**
 * The current connection. Commands go to `out`; `generation` distinguishes its reports from those of earlier ones.
 * `endReason` is why the gateway will close it, once the gateway has said so.
 */
export class Connection {
  state: State = "idle";
  generation = 0;
  endReason = "";
  readonly tokens: Tokens;
  readonly deadlines: Deadlines;
  readonly reconnecting = new Reconnecting();
  readonly #limits: SessionLimits;
  readonly #topics: Subscriptions;
  readonly #out: Command[];

  constructor(topics: Subscriptions, limits: SessionLimits, out: Command[], grants: Iterable<string>) {
    this.#limits = limits;
    this.tokens = new Tokens(limits, grants);
    this.deadlines = new Deadlines(limits);
    this.#topics = topics;
    this.#out = out;
  }

  /** Whether `step` is possible now. */
  may(step: Step): boolean {
    return allows(this.state, step);
  }

  // ------------------------------------------------------------------------------------------------------------- up

  /** Take `step`, which makes a connection wanted. */
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

  /** Send Hello: the connection is open. */
  greet(deviceId: string, clientBuildId: string, at: Instant): void {
    this.#go("connected");
    this.deadlines.greeted(at.nowMs);
    const token = this.tokens.show() ?? "";
    const [protocolVersion, schemaVersion] = [PROTOCOL_VERSION, SCHEMA_VERSION];
    this.send({ kind: "hello", token, deviceId, clientBuildId, protocolVersion, schemaVersion });
  }

  /** Handle WELCOME: the gateway has accepted the connection, and it can carry topics. */
  welcome(frame: Welcome, at: Instant): void {
    this.#go("welcomed");
    this.deadlines.welcomed(at.nowMs, frame.heartbeatIntervalMs, frame.idleTimeoutMs);
    this.reconnecting.reschedule(0);
    // Both times are the gateway's, so their difference doesn't depend on our clock.
    this.tokens.welcomed(frame.tokenExpireTimeMs - frame.serverTimeMs, at.nowMs);
    this.useToken();
  }

  // -------------------------------------------------------------------------------------------------- while it lasts

  /** Send `frame` on the connection. */
  send(frame: ClientFrame): void {
    this.#out.push({ kind: "send", generation: this.generation, frame });
  }

  /** Ask for a token for all followed topics. */
  needToken(): void {
    const need = this.tokens.ask(this.#topics.wanted);
    if (need !== null) this.#out.push(need);
  }

  /** Show the token, if this connection hasn't seen it. */
  useToken(): void {
    const token = this.tokens.show();
    if (token !== null) this.send({ kind: "refreshToken", token });
  }

  /** Subscribe those of `names` that wait for it; if the token lacks some of them, ask for one that has them. */
  ask(names: readonly string[]): void {
    if (this.state !== "open" || !this.tokens.held) return;
    const grants = (topic: string): boolean => this.tokens.grants(topic);
    if (this.#topics.lacking(names, grants)) this.needToken();
    for (const request of this.#topics.requests(names, grants)) this.send(request);
  }

  /** Do what the passing of time requires on an open connection. */
  keepUp(at: Instant): void {
    const nonce = this.deadlines.ping(at.nowMs);
    if (nonce !== null) this.send({ kind: "ping", nonce });
    if (at.nowMs >= this.tokens.refreshAtMs) this.needToken();
    this.ask(this.#topics.wake(at.nowMs));
  }

  // ----------------------------------------------------------------------------------------------------------- down

  /** Note why the gateway will close the connection. The consequences are decided when it closes. */
  refused(frame: ErrorFrame, at: Instant): void {
    this.endReason = frame.reason;
    this.reconnecting.hold(at.nowMs + frame.retryAfterMs);
  }

  /** Drop the connection, which is useless, and connect again. */
  giveUp(at: Instant, reason = "", retryAfterMs = 0): void {
    this.#out.push({ kind: "disconnect", generation: this.generation });
    this.ended(at, reason, "", retryAfterMs);
  }

  /** Handle the end of the connection: back off and connect again, unless that can't help. */
  ended(at: Instant, reason: string, message: string, retryAfterMs: number): void {
    this.#forget();
    // The session may be alive and only the token dead: ask for another one, once.
    if (reason !== "" && (isFinal(reason) || (reason === REVOKED && this.tokens.revokedAgain()))) {
      this.fail(reason, message);
      return;
    }
    if (reason !== "" && actionOf(reason) === "reauthenticate" && this.tokens.refusedAgain()) {
      this.fail(reason, `${this.#limits.maxRefusedTokens} tokens in a row were refused; ${CHECK}: ${message}`);
      return;
    }
    this.reconnecting.failed(at, retryAfterMs);
    this.want("lost", at);
  }

  /** Drop the connection, if there is one, and don't connect again until the session is resumed, if ever. */
  leave(step: Step): void {
    if (this.may("lost")) this.#out.push({ kind: "disconnect", generation: this.generation });
    this.#forget();
    this.#go(step);
  }

  /** End the session: retrying can't help. */
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
