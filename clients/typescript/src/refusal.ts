/** The only error class of this package. */

import { actionOf, type ClientAction } from "./core/catalogue.js";

/**
 * Something was refused, for a reason of the catalogue (`docs/errors.md`). `action` is what to do about it, `field` the
 * path of the field at fault, if any, and `retryAfterMs` how long to wait before a retry can help; 0 if that is not
 * known.
 */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly reason: string;
  readonly field: string;
  readonly retryAfterMs: number;

  constructor(reason: string, message: string, { field = "", retryAfterMs = 0 } = {}) {
    super(message);
    this.reason = reason;
    this.field = field;
    this.retryAfterMs = retryAfterMs;
  }

  /** What a client does about the reason, according to the catalogue. */
  get action(): ClientAction {
    return actionOf(this.reason);
  }
}
