/** The one error of this package. */

import { actionOf, type ClientAction } from "./core/catalogue.js";

/**
 * Something was refused, for a reason of the catalogue (`docs/errors.md`). `action` is what to do about it, `field` the
 * path of the field that is to blame, if one is, and `retryAfterMs` how long to wait before trying again can help; 0
 * says nothing about that.
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

  /** What the catalogue says that a client does. */
  get action(): ClientAction {
    return actionOf(this.reason);
  }
}
