/** The limits of a client: the defaults, and what a program may set. */

import { SESSION_LIMITS, type SessionLimits } from "./core/commands.js";
import { INBOX_LIMITS, type InboxLimits } from "./inbox.js";
import { Refusal } from "./refusal.js";

/** How long the client waits for others. */
export interface WaitLimits {
  /** A request for a token that has not settled after this time counts as failed, and what it brings later is dropped. */
  readonly tokenTimeoutMs: number;
  /** A loop whose store of cursors has not answered within this time ends with `deadline_exceeded`. */
  readonly storeTimeoutMs: number;
}

export const WAIT_LIMITS: WaitLimits = { tokenTimeoutMs: 120_000, storeTimeoutMs: 60_000 };

/** All limits of a client. */
export type Limits = SessionLimits & InboxLimits & WaitLimits;

const DEFAULTS: Limits = { ...SESSION_LIMITS, ...INBOX_LIMITS, ...WAIT_LIMITS };

// Below these, a client would do nothing, or the same thing without a pause. All others have to be 1 or more.
const LOWEST: Partial<Limits> = { refreshAtFraction: 0.1, tokenMarginMs: 0, maxRepairs: 0 };

/**
 * Return the defaults with `given` in their place; a value that is undefined counts as not given. Throws Refusal
 * `invalid_setting` naming the limit.
 */
export function checkedLimits(given: { readonly [Name in keyof Limits]?: Limits[Name] | undefined } = {}): Limits {
  const limits: { -readonly [Name in keyof Limits]: number } = { ...DEFAULTS };
  for (const [name, value] of Object.entries(given) as [keyof Limits, unknown][]) {
    if (value === undefined) continue;
    if (!(name in DEFAULTS)) throw refusal(name, "is no limit; see SESSION_LIMITS, INBOX_LIMITS and WAIT_LIMITS");
    const lowest = LOWEST[name] ?? 1;
    // NaN is not at least anything.
    if (typeof value !== "number" || !(value >= lowest)) throw refusal(name, `must be a number of ${lowest} or more`);
    limits[name] = value;
  }
  if (limits.tokenMarginMs >= limits.minTokenLifeMs) {
    throw refusal("tokenMarginMs", "must be less than minTokenLifeMs: otherwise, no token is worth a connection");
  }
  return limits;
}

function refusal(name: string, text: string): Refusal {
  return new Refusal("invalid_setting", `limits.${name} ${text}`, { field: `limits.${name}` });
}
