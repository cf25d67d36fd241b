/** One WebSocket of the client: a thin layer over that of browsers, Node 22 and newer, or the package `ws`. */

import { isReason } from "./core/catalogue.js";
import type { ClientFrame, ServerFrame } from "./core/frames.js";
import { Refusal } from "./refusal.js";
import { decodeServerFrame, encodeClientFrame, SUBPROTOCOL } from "./wire.js";

const PROTOCOL_ERROR = 4400;
const GOING_AWAY = 1000;
const MAX_WRONG_CHARACTERS = 200;

/** What the client needs of a WebSocket. */
export interface WebSocketLike {
  binaryType: string;
  readonly protocol: string;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

/** A class of WebSockets, such as `globalThis.WebSocket`. */
export type WebSocketClass = new (url: string, protocols: string[]) => WebSocketLike;

/** The listener of a connection. `ended` is called once, and last; its `reason` is from the catalogue, or empty. */
export interface Listener {
  opened(): void;
  received(frame: ServerFrame): void;
  ended(reason: string, message: string): void;
}

/** Return the WebSocket class of this environment. Throws Refusal when there is none. */
export function defaultWebSocket(): WebSocketClass {
  const found = (globalThis as { WebSocket?: WebSocketClass }).WebSocket;
  if (found === undefined) {
    const text = "there is no WebSocket here; pass one, for example that of the package ws, or use Node 22 or newer";
    throw new Refusal("invalid_setting", text, { field: "webSocket" });
  }
  return found;
}

/** A connection, from the attempt on. Its listener is not called after `drop`. */
export class Link {
  readonly #socket: WebSocketLike;
  #listener: Listener | null;
  #wrong = "";

  /** Begin to open `url`. Throws, as the class does, if it is not a valid URL. */
  constructor(webSocket: WebSocketClass, url: string, listener: Listener) {
    this.#listener = listener;
    this.#socket = new webSocket(url, [SUBPROTOCOL]);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => this.#opened();
    this.#socket.onmessage = (event: { data: unknown }) => this.#message(event.data);
    // Browsers do not tell pages what is wrong; Node does. `onclose` follows.
    this.#socket.onerror = (event: { message?: unknown } | undefined) => {
      if (typeof event?.message === "string") this.#wrong = event.message.slice(0, MAX_WRONG_CHARACTERS);
    };
    this.#socket.onclose = (event: { code: number; reason: string }) => this.#closed(event.code, event.reason);
  }

  /** Send one frame. */
  send(frame: ClientFrame): void {
    if (this.#listener !== null) this.#socket.send(encodeClientFrame(frame));
  }

  /** Close the connection, or give up the attempt. The listener is no longer called. */
  drop(code = GOING_AWAY): void {
    this.#listener = null;
    this.#socket.close(code);
  }

  #opened(): void {
    if (this.#socket.protocol === SUBPROTOCOL) {
      this.#listener?.opened();
    } else {
      this.#fail(
        "unsupported_protocol_version",
        `the address does not speak ${SUBPROTOCOL}; check it, or update this client`,
      );
    }
  }

  #message(data: unknown): void {
    if (this.#listener === null) return;
    let frame: ServerFrame;
    try {
      if (!(data instanceof ArrayBuffer))
        throw new Refusal("protocol_violation", "a text message came on a binary connection");
      frame = decodeServerFrame(new Uint8Array(data));
    } catch (error) {
      this.#fail("", `the gateway sent what is no frame: ${(error as Error).message}`);
      return;
    }
    this.#listener.received(frame);
  }

  #closed(code: number, reason: string): void {
    const listener = this.#listener;
    this.#listener = null;
    const wrong = this.#wrong === "" ? "" : `: ${this.#wrong}`;
    listener?.ended(isReason(reason) ? reason : "", reason || `closed with ${code}${wrong}`);
  }

  #fail(reason: string, message: string): void {
    const listener = this.#listener;
    this.drop(PROTOCOL_ERROR);
    listener?.ended(reason, message);
  }
}
