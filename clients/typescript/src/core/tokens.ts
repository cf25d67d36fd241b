/** The sync token of a session: which one it has, for how long, and when it asks for another. */

import { waitMs } from "./backoff.js";
import type { Instant, NeedToken, SessionLimits, SyncToken } from "./commands.js";
import { NEVER } from "./deadlines.js";
import { opens } from "./grants.js";

/** `retryAtMs` is when to ask again after no token was available, `refreshAtMs` when the current one ages. */
export class Tokens {
  retryAtMs = NEVER;
  refreshAtMs = NEVER;
  readonly #limits: SessionLimits;
  #token: SyncToken | null = null;
  #endsMs = 0;
  #shown: string | null = null;
  #asked = false;
  #wanted: readonly string[] = [];
  #attempts = 0;
  #revoked = false;
  #refusedInARow = 0;
  #grants: ReadonlySet<string>;

  /** `grants`: topics of owners to ask for instead of each topic by name, as in `grants`. */
  constructor(limits: SessionLimits, grants: Iterable<string> = []) {
    this.#limits = limits;
    this.#grants = new Set(grants);
  }

  /** Whether there is a token. */
  get held(): boolean {
    return this.#token !== null;
  }

  /** Whether the token grants `topic`. */
  grants(topic: string): boolean {
    return this.#token !== null && grants(this.#token, topic);
  }

  /** Whether the token is worth a connection. */
  usable(nowMs: number): boolean {
    return this.#token !== null && this.#endsMs > nowMs + this.#limits.tokenMarginMs;
  }

  /** Ask for a token for `wanted`, one request at a time; without topics, there is nothing to ask for. */
  ask(wanted: readonly string[]): NeedToken | null {
    this.retryAtMs = this.refreshAtMs = NEVER;
    if (wanted.length === 0 || this.#asked) return null;
    this.#asked = true;
    this.#wanted = this.#named(wanted);
    return { kind: "needToken", topics: this.#wanted };
  }

  /**
   * Pass over an answer that would end a topic of those that the connection carries, because the token was not asked
   * for it: it was left at that time, or a grant that opened it is now denied. Ask for another one then.
   */
  passedOver(token: SyncToken, carried: readonly string[]): boolean {
    if (carried.every((topic) => grants(token, topic) || this.#wanted.includes(topic))) return false;
    this.#asked = false;
    this.#keepGrants(token);
    return true;
  }

  /**
   * Take `token` as the answer. Returns what was asked for and not granted. Grants of owners that were denied are no
   * longer asked for: their topics are asked for by name from then on.
   */
  granted(token: SyncToken, nowMs: number): readonly string[] {
    this.#asked = false;
    this.#attempts = 0;
    this.retryAtMs = NEVER;
    this.#token = token;
    this.#keepGrants(token);
    // `expiresInMs` may be anything if it was computed with a wrong clock; WELCOME then says what is true.
    this.#lives(Math.max(token.expiresInMs, this.#limits.minTokenLifeMs), nowMs);
    return this.#wanted.filter((topic) => !token.topics.has(topic));
  }

  /** Whether one token can have `wanted`: control refuses a request for more as a whole. */
  hasRoom(wanted: readonly string[]): boolean {
    return this.#named(wanted).length <= this.#limits.maxTopics;
  }

  /**
   * Note that nothing that was asked for is granted. True if grants of owners were among it: from now on, their topics
   * are asked for by name.
   */
  dropGrants(): boolean {
    const asked = this.#wanted.some((name) => this.#grants.has(name));
    this.#grants = new Set();
    return asked;
  }

  /** Note the answer that no token is available now: ask again later, and not before `retryAfterMs`. */
  refused(at: Instant, retryAfterMs: number): void {
    this.#asked = false;
    this.retryAtMs = at.nowMs + Math.max(waitMs(this.#attempts, at.jitter), retryAfterMs);
    this.#attempts += 1;
  }

  /** Return the token's text, to be sent; null when this connection has seen it. */
  show(): string | null {
    if (this.#token === null || this.#token.text === this.#shown) return null;
    this.#shown = this.#token.text;
    return this.#shown;
  }

  /** Take from the gateway how much longer the token that it was shown lives. */
  welcomed(leftMs: number, nowMs: number): void {
    this.#revoked = false;
    this.#refusedInARow = 0;
    if (this.#token !== null && this.#token.text === this.#shown) this.#lives(leftMs, nowMs);
  }

  /** Note that the token was revoked. True if the one before was revoked, too: another one won't help. */
  revokedAgain(): boolean {
    const again = this.#revoked;
    this.#revoked = true;
    return again;
  }

  /**
   * Drop the token, which the gateway does not take. True if so many in a row were refused, none of them having been
   * taken, that another one won't help.
   */
  refusedAgain(): boolean {
    this.#token = null;
    this.#refusedInARow += 1;
    return this.#refusedInARow >= this.#limits.maxRefusedTokens;
  }

  /** Note that the connection is gone: the next one has seen no token. */
  cut(): void {
    this.#shown = null;
  }

  #named(wanted: readonly string[]): readonly string[] {
    const byName = wanted.filter((topic) => !this.#grants.has(topic) && !opens(this.#grants, topic));
    return [...this.#grants, ...byName];
  }

  #keepGrants(token: SyncToken): void {
    this.#grants = new Set([...this.#grants].filter((grant) => token.topics.has(grant)));
  }

  #lives(leftMs: number, nowMs: number): void {
    this.#endsMs = nowMs + leftMs;
    this.refreshAtMs = nowMs + Math.trunc(leftMs * this.#limits.refreshAtFraction);
  }
}

function grants(token: SyncToken, topic: string): boolean {
  return token.topics.has(topic) || opens(token.topics, topic);
}
