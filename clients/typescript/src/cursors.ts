/** Where cursors are kept between sessions. */

import { NO_BYTES, type Cursor } from "./core/frames.js";
import { Refusal } from "./refusal.js";

const CHAIN_BYTES = [0, 32];
/** Maximum length of an epoch, in characters. A gateway ends the whole connection of a client that sends more. */
const MAX_EPOCH_CHARACTERS = 64;

/**
 * Keeps cursors by topic. `save` is awaited before the element after the cursor's is handed out; after `close()`, or
 * when the loop is left, it is called and no longer awaited.
 */
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

/** What is needed of a `Storage`. It is spelled out for programs that are compiled without the types of browsers. */
export interface TextStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** Keeps cursors in `localStorage`, `sessionStorage`, or the like. An unreadable entry counts as no cursor. */
export class StorageCursors implements CursorStore {
  readonly #storage: TextStorage;
  readonly #prefix: string;

  constructor(storage: TextStorage, prefix = "khala.cursor:") {
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
  if (typeof chain !== "string" || !/^([0-9a-f]{64})?$/.test(chain)) return null;
  const bytes = chain === "" ? NO_BYTES : Uint8Array.from(chain.match(/../g)!, (byte) => parseInt(byte, 16));
  const cursor = { epoch, appliedSeq, chain: bytes };
  return isCursor(cursor) ? cursor : null;
}

/** Return `cursor`, or null if there is none. Throws Refusal `invalid_value` if it is something else. */
export function checkedCursor(cursor: Cursor | null | undefined): Cursor | null {
  if (cursor === null || cursor === undefined) return null;
  if (isCursor(cursor)) return cursor;
  const text = "this is no cursor; give the one of an update as it was, or what readCursor made of its text";
  throw new Refusal("invalid_value", text, { field: "cursor" });
}

function isCursor(value: { epoch?: unknown; appliedSeq?: unknown; chain?: unknown }): value is Cursor {
  const { epoch, appliedSeq, chain } = value;
  if (!isEpoch(epoch) || !Number.isSafeInteger(appliedSeq) || (appliedSeq as number) < 0) return false;
  return chain instanceof Uint8Array && CHAIN_BYTES.includes(chain.length);
}

function isEpoch(value: unknown): value is string {
  return typeof value === "string" && [...value].length <= MAX_EPOCH_CHARACTERS && !value.includes("\0");
}
