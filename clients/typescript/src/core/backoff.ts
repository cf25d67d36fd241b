/** How long to wait before something that failed is tried again. */

/** A wait does not grow after this many attempts. */
const MAX_DOUBLINGS = 32;

const FIRST_MS = 250;
const MAX_MS = 8_000;

/**
 * Return the wait before attempt number `attempt` (0 is the first), in ms: the share `jitter` of a ceiling that
 * doubles. With a `jitter` that is uniform in [0, 1) (full jitter), clients that were cut off together do not come back
 * together.
 */
export function waitMs(attempt: number, jitter: number): number {
  const ceilingMs = Math.min(MAX_MS, FIRST_MS * 2 ** Math.min(attempt, MAX_DOUBLINGS));
  return Math.floor(ceilingMs * jitter);
}
