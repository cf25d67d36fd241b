/** The updates of a topic that have come and have not been taken yet. */

/** How much of one topic may wait before the client asks for no more. The limit that is reached first counts. */
export interface InboxLimits {
  readonly maxUpdates: number;
  readonly maxBytes: number;
}

export const INBOX_LIMITS: InboxLimits = { maxUpdates: 1_024, maxBytes: 4 * 1024 * 1024 };

/** A queue with one reader and an end. */
export class Inbox<T> {
  readonly #limits: InboxLimits;
  readonly #size: (update: T) => number;
  #waiting: T[] = [];
  #bytes = 0;
  #end: { readonly error: Error | null } | null = null;
  #wake: () => void = () => {};
  #settle!: () => void;
  /** Settles when the queue ends. */
  readonly ended = new Promise<undefined>((resolve) => (this.#settle = () => resolve(undefined)));

  constructor(limits: InboxLimits, size: (update: T) => number) {
    this.#limits = limits;
    this.#size = size;
  }

  /** Whether a limit has been reached. */
  get full(): boolean {
    return this.#waiting.length >= this.#limits.maxUpdates || this.#bytes >= this.#limits.maxBytes;
  }

  /** Whether less than half of each limit waits. */
  get hasRoom(): boolean {
    return this.#waiting.length * 2 < this.#limits.maxUpdates && this.#bytes * 2 < this.#limits.maxBytes;
  }

  /** Add one update. Ignored after the end. */
  put(update: T): void {
    if (this.#end !== null) return;
    this.#waiting.push(update);
    this.#bytes += this.#size(update);
    this.#wake();
  }

  /** End the queue: after the updates that wait, `take` throws `error`, or returns undefined if there is none. */
  end(error: Error | null = null): void {
    this.#end ??= { error };
    this.#settle();
    this.#wake();
  }

  /** Discard the updates that wait, and end the queue. */
  drop(): void {
    this.#waiting = [];
    this.#bytes = 0;
    this.end();
  }

  /** Return the next update, after waiting for it if necessary. */
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
