/** What has come of a topic and has not been taken yet. */

/** How much waits of one topic before no more is asked for: whichever is reached first. */
export interface InboxLimits {
  readonly maxUpdates: number;
  readonly maxBytes: number;
}

export const INBOX_LIMITS: InboxLimits = { maxUpdates: 1_024, maxBytes: 4 * 1024 * 1024 };

/** A queue of one reader, with an end. */
export class Inbox<T> {
  readonly #limits: InboxLimits;
  readonly #size: (update: T) => number;
  #waiting: T[] = [];
  #bytes = 0;
  #end: { readonly error: Error | null } | null = null;
  #wake: () => void = () => {};

  constructor(limits: InboxLimits, size: (update: T) => number) {
    this.#limits = limits;
    this.#size = size;
  }

  /** Whether a limit is reached. */
  get full(): boolean {
    return this.#waiting.length >= this.#limits.maxUpdates || this.#bytes >= this.#limits.maxBytes;
  }

  /** Whether less than half of the limits waits. */
  get hasRoom(): boolean {
    return this.#waiting.length * 2 < this.#limits.maxUpdates && this.#bytes * 2 < this.#limits.maxBytes;
  }

  /** One more; nothing after the end. */
  put(update: T): void {
    if (this.#end !== null) return;
    this.#waiting.push(update);
    this.#bytes += this.#size(update);
    this.#wake();
  }

  /** Nothing more comes: what waits is taken first, then `take` throws `error`, or gives undefined without one. */
  end(error: Error | null = null): void {
    this.#end ??= { error };
    this.#wake();
  }

  /** Nobody takes what waits, nor anything after it. */
  drop(): void {
    this.#waiting = [];
    this.#bytes = 0;
    this.end();
  }

  /** The next one; waits for it. */
  async take(): Promise<T | undefined> {
    for (;;) {
      const update = this.#waiting.shift();
      if (update !== undefined) {
        this.#bytes -= this.#size(update);
        return update;
      }
      if (this.#end?.error) throw this.#end.error;
      if (this.#end !== null) return undefined;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}
