/** When a session gives up a connection, pings, and connects again. All times are those of its driver, in ms. */

import { waitMs } from "./backoff.js";
import type { Instant, SessionLimits } from "./commands.js";

export const NEVER = Infinity;

/** Deadlines of one connection: when the next sign of life must have come, and when the next PING is due. */
export class Deadlines {
  giveUpAtMs = NEVER;
  pingAtMs = NEVER;
  readonly #limits: SessionLimits;
  #pingEveryMs = 0;
  #silenceLimitMs = 0;
  #nonce = 0;

  constructor(limits: SessionLimits) {
    this.#limits = limits;
  }

  /** Note that the connection will be attempted after `delayMs`. */
  dialed(nowMs: number, delayMs: number): void {
    this.giveUpAtMs = nowMs + delayMs + this.#limits.connectTimeoutMs;
  }

  /** Note that Hello has been sent; WELCOME has to follow. */
  greeted(nowMs: number): void {
    this.giveUpAtMs = nowMs + this.#limits.helloTimeoutMs;
  }

  /** Take from WELCOME how often the gateway sends something, and how often it has to hear something. */
  welcomed(nowMs: number, heartbeatIntervalMs: number, idleTimeoutMs: number): void {
    this.#silenceLimitMs = Math.floor(heartbeatIntervalMs * this.#limits.silentHeartbeats);
    this.#pingEveryMs = Math.max(1, Math.floor(idleTimeoutMs / 3));
    this.pingAtMs = nowMs + this.#pingEveryMs;
    this.heard(nowMs);
  }

  /** Note that a frame came. */
  heard(nowMs: number): void {
    this.giveUpAtMs = nowMs + this.#silenceLimitMs;
  }

  /** Return the nonce of the PING that is due; null when none is. */
  ping(nowMs: number): number | null {
    if (nowMs < this.pingAtMs) return null;
    this.pingAtMs = nowMs + this.#pingEveryMs;
    this.#nonce += 1;
    return this.#nonce;
  }

  /** Forget the deadlines: the connection is gone. */
  cut(): void {
    this.giveUpAtMs = this.pingAtMs = NEVER;
  }
}

/** How long to wait before the next connection: as backoff or the gateway requires, whichever is later. */
export class Reconnecting {
  #attempts = 0;
  #backoffUntilMs = 0;
  #notBeforeMs = 0;

  /** Note that the connection is useful: the next failure counts as the first again. */
  succeeded(): void {
    this.#attempts = 0;
  }

  /** Forget what failed before the device slept. What a gateway requires still counts. */
  woke(): void {
    this.#attempts = this.#backoffUntilMs = 0;
  }

  /** Note that one more connection ended. */
  failed(at: Instant, retryAfterMs: number): void {
    this.#backoffUntilMs = at.nowMs + waitMs(this.#attempts, at.jitter);
    this.hold(at.nowMs + retryAfterMs);
    this.#attempts += 1;
  }

  /** Allow no connection before `untilMs`, nor before any time requested earlier. */
  hold(untilMs: number): void {
    this.#notBeforeMs = Math.max(this.#notBeforeMs, untilMs);
  }

  /** Set the next connection to `atMs`, regardless of earlier requests; 0 is at once. */
  reschedule(atMs: number): void {
    this.#backoffUntilMs = 0;
    this.#notBeforeMs = atMs;
  }

  /** Return the time left to wait. */
  delayMs(nowMs: number): number {
    return Math.max(0, this.#backoffUntilMs - nowMs, this.#notBeforeMs - nowMs);
  }
}
