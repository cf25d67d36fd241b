/** Where cursors are kept between sessions. */

import { NO_BYTES, type Cursor } from "./core/frames.js";

/** Keeps cursors by topic. `save` is awaited before the element after the cursor's is handed out. */
export interface CursorStore {
  load(topic: string): Cursor | null | Promise<Cursor | null>;
  save(topic: string, cursor: Cursor): void | Promise<void>;
  drop(topic: string): void | Promise<void>;
}

/** Keeps cursors in memory only: each new client starts at the beginning of its topics. */
export class MemoryCursors implements CursorStore {
  readonly #cursors = new Map<string, Cursor>();

  load(topic: string): Cursor | null {
    return this.#cursors.get(topic) ?? null;
  }

  save(topic: string, cursor: Cursor): void {
    this.#cursors.set(topic, cursor);
  }

  drop(topic: string): void {
    this.#cursors.delete(topic);
  }
}

/** Keeps cursors in `localStorage`, `sessionStorage`, or the like. An unreadable entry counts as no cursor. */
export class StorageCursors implements CursorStore {
  readonly #storage: Pick<Storage, "getItem" | "setItem" | "removeItem">;
  readonly #prefix: string;

  constructor(storage: Pick<Storage, "getItem" | "setItem" | "removeItem">, prefix = "khala.cursor:") {
    this.#storage = storage;
    this.#prefix = prefix;
  }

  load(topic: string): Cursor | null {
    return readCursor(this.#storage.getItem(this.#prefix + topic) ?? "");
  }

  save(topic: string, cursor: Cursor): void {
    this.#storage.setItem(this.#prefix + topic, writeCursor(cursor));
  }

  drop(topic: string): void {
    this.#storage.removeItem(this.#prefix + topic);
  }
}

/** Return a cursor as text, to be stored with the state that it describes. */
export function writeCursor(cursor: Cursor): string {
  const chain = Array.from(cursor.chain, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return JSON.stringify({ epoch: cursor.epoch, appliedSeq: cursor.appliedSeq, chain });
}

/** Return the cursor that `writeCursor` wrote as `text`; null for any other text. */
export function readCursor(text: string): Cursor | null {
  let read: Partial<Record<"epoch" | "appliedSeq" | "chain", unknown>> | null;
  try {
    read = JSON.parse(text);
  } catch {
    return null;
  }
  const { epoch, appliedSeq, chain } = read ?? {};
  const isCursor = typeof epoch === "string" && Number.isSafeInteger(appliedSeq) && (appliedSeq as number) >= 0;
  if (!isCursor || typeof chain !== "string" || !/^([0-9a-f]{64})?$/.test(chain)) return null;
  const bytes = chain === "" ? NO_BYTES : Uint8Array.from(chain.match(/../g)!, (byte) => parseInt(byte, 16));
  return { epoch, appliedSeq: appliedSeq as number, chain: bytes };
}
