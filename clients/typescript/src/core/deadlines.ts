/** When a session gives a connection up, pings, and connects again. All times are those of its driver, in ms. */

import { waitMs } from "./backoff.js";
import type { Instant, SessionLimits } from "./commands.js";

export const NEVER = Infinity;

/** Of one connection: until when the next sign of life has to come, and when the next PING is due. */
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

  /** It will be attempted after `delayMs`. */
  dialed(nowMs: number, delayMs: number): void {
    this.giveUpAtMs = nowMs + delayMs + this.#limits.connectTimeoutMs;
  }

  /** Hello is out; WELCOME has to follow. */
  greeted(nowMs: number): void {
    this.giveUpAtMs = nowMs + this.#limits.helloTimeoutMs;
  }

  /** WELCOME said how often the gateway speaks, and how often it has to hear something. */
  welcomed(nowMs: number, heartbeatIntervalMs: number, idleTimeoutMs: number): void {
    this.#silenceLimitMs = Math.floor(heartbeatIntervalMs * this.#limits.silentHeartbeats);
    this.#pingEveryMs = Math.max(1, Math.floor(idleTimeoutMs / 3));
    this.pingAtMs = nowMs + this.#pingEveryMs;
    this.heard(nowMs);
  }

  /** A frame came. */
  heard(nowMs: number): void {
    this.giveUpAtMs = nowMs + this.#silenceLimitMs;
  }

  /** The nonce of the PING that is due; null when none is. */
  ping(nowMs: number): number | null {
    if (nowMs < this.pingAtMs) return null;
    this.pingAtMs = nowMs + this.#pingEveryMs;
    this.#nonce += 1;
    return this.#nonce;
  }

  /** The connection is gone. */
  cut(): void {
    this.giveUpAtMs = this.pingAtMs = NEVER;
  }
}

/** How long to wait before the next connection: what backoff and the gateway ask for, whichever is later. */
export class Reconnecting {
  #attempts = 0;
  #notBeforeMs = 0;

  /** The connection is of use: the next one that ends is the first again. */
  succeeded(): void {
    this.#attempts = 0;
  }

  /** One more connection ended. */
  failed(at: Instant, retryAfterMs: number): void {
    this.hold(at.nowMs + Math.max(waitMs(this.#attempts, at.jitter), retryAfterMs));
    this.#attempts += 1;
  }

  /** No connection before `untilMs`, nor before what was asked for earlier. */
  hold(untilMs: number): void {
    this.#notBeforeMs = Math.max(this.#notBeforeMs, untilMs);
  }

  /** The next connection at `atMs`, whatever was asked for earlier; 0 is at once. */
  reschedule(atMs: number): void {
    this.#notBeforeMs = atMs;
  }

  /** What is left to wait. */
  delayMs(nowMs: number): number {
    return Math.max(0, this.#notBeforeMs - nowMs);
  }
}
