/** A gateway in this process, behind a WebSocket class: what it is told is in `heard`, what it says is the test's. */

import { create, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";

import type { SyncGrant } from "../src/control.js";
import {
  CaughtUpSchema,
  DeliveryPlan,
  ErrorSchema,
  FrameKind,
  HeartbeatSchema,
  KhalaFrameSchema,
  SubscribedSchema,
  WelcomeSchema,
} from "../src/gen/openagents/sync/v1/frame_pb.js";
import type { WebSocketClass, WebSocketLike } from "../src/sockets.js";
import { decodeClientFrame } from "../src/wire.js";

export const T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events";
export const URL_OF_GATEWAY = "ws://gateway";

/** One connection, seen by the gateway. */
class Socket implements WebSocketLike {
  binaryType = "blob";
  protocol: string;
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  closed: number | undefined;
  readonly #gateway: Gateway;

  constructor(gateway: Gateway, protocols: string[]) {
    this.#gateway = gateway;
    this.protocol = gateway.protocol ?? protocols[0]!;
    setImmediate(() => {
      if (this.closed === undefined) this.onopen?.({} as never);
    });
  }

  send(data: Uint8Array<ArrayBuffer>): void {
    this.#gateway.hear(this, data);
  }

  close(code = 1005): void {
    this.closed ??= code;
  }

  /** The gateway says `data`. */
  says(data: unknown): void {
    if (this.closed === undefined) this.onmessage?.({ data } as never);
  }

  /** The gateway, or the network, ends it. */
  ends(code: number, reason = ""): void {
    if (this.closed === undefined) this.onclose?.({ code, reason } as never);
    this.closed ??= code;
  }
}

/** Welcomes, and serves `T` with `events`, from the cursor on. */
export class Gateway {
  readonly heard: string[] = [];
  readonly sockets: Socket[] = [];
  events: string[] = [];
  epoch = "e1";
  protocol: string | undefined;
  idleTimeoutMs = 600_000;
  /** Instead of SUBSCRIBED, if it is set. */
  refusal: string | undefined;

  /** The class that connects to it. */
  get webSocket(): WebSocketClass {
    const gateway = this;
    return function (_url: string, protocols: string[]) {
      const socket = new Socket(gateway, protocols);
      gateway.sockets.push(socket);
      return socket;
    } as unknown as WebSocketClass;
  }

  /** A token for all that is asked for. */
  readonly tokens = async (topics: readonly string[]): Promise<SyncGrant> => {
    return { token: "token", topics, expiresInMs: 300_000, khalaUrl: URL_OF_GATEWAY };
  };

  /** The newest connection. */
  get socket(): Socket {
    return this.sockets.at(-1)!;
  }

  hear(socket: Socket, data: Uint8Array): void {
    const { body } = decodeClientFrame(data);
    if (body.case === "hello") {
      this.heard.push("hello");
      setImmediate(() => socket.says(welcome(this.idleTimeoutMs)));
    } else if (body.case === "subscribe") {
      const { cursor, takesSnapshots } = body.value.topics[0]!;
      const from = cursor?.appliedSeq ?? (takesSnapshots ? "with a snapshot" : "from the start");
      this.heard.push(`subscribe ${from}`);
      setImmediate(() => this.serve(socket, cursor?.epoch, Number(cursor?.appliedSeq ?? 0)));
    } else {
      this.heard.push(String(body.case));
    }
  }

  serve(socket: Socket, epoch: string | undefined, fromSeq: number): void {
    const stale = epoch !== undefined && epoch !== this.epoch ? "epoch_mismatch" : undefined;
    const refusal = this.refusal ?? stale;
    if (refusal !== undefined) {
      socket.says(error(refusal, T));
      return;
    }
    socket.says(subscribed(this.epoch, fromSeq, this.events.length));
    for (let seq = fromSeq + 1; seq <= this.events.length; seq += 1) socket.says(event(seq, this.events[seq - 1]!));
    socket.says(
      frame(FrameKind.CAUGHT_UP, toBinary(CaughtUpSchema, create(CaughtUpSchema, { seq: BigInt(this.events.length) }))),
    );
  }

  /** One more event, live. */
  append(payload: string): void {
    this.events.push(payload);
    this.socket.says(event(this.events.length, payload));
  }
}

// --------------------------------------------------------------------------------------------------------- frames

function frame(
  kind: FrameKind,
  payloadBytes: Uint8Array,
  more: MessageInitShape<typeof KhalaFrameSchema> = {},
): ArrayBuffer {
  const message = create(KhalaFrameSchema, { kind, payloadBytes, topic: T, schemaVersion: 1, ...more });
  return toBinary(KhalaFrameSchema, message).buffer;
}

export function event(seq: number, payload: string, schemaVersion = 1): ArrayBuffer {
  return frame(FrameKind.EVENT, new TextEncoder().encode(payload), { seq: BigInt(seq), schemaVersion });
}

export function snapshot(seq: number, payload: string, part = 0, parts = 0): ArrayBuffer {
  return frame(FrameKind.SNAPSHOT, new TextEncoder().encode(payload), { seq: BigInt(seq), part, parts });
}

export function error(reasonName: string, topic = "", retryAfterMs = 0): ArrayBuffer {
  const message = create(ErrorSchema, { reasonName, message: "no", retryAfterMs });
  return frame(FrameKind.ERROR, toBinary(ErrorSchema, message), { topic });
}

export function subscribed(epoch: string, fromSeq: number, head: number, plan = DeliveryPlan.REPLAY): ArrayBuffer {
  const message = create(SubscribedSchema, { epoch, fromSeq: BigInt(fromSeq), head: BigInt(head), plan });
  return frame(FrameKind.SUBSCRIBED, toBinary(SubscribedSchema, message));
}

export function heartbeat(): ArrayBuffer {
  return frame(FrameKind.HEARTBEAT, toBinary(HeartbeatSchema, create(HeartbeatSchema)), { topic: "" });
}

function welcome(idleTimeoutMs: number): ArrayBuffer {
  const message = create(WelcomeSchema, {
    connectionId: "con_1",
    heartbeatIntervalMs: 600_000,
    idleTimeoutMs,
    serverTime: timestampFromMs(0),
    tokenExpireTime: timestampFromMs(300_000),
  });
  return frame(FrameKind.WELCOME, toBinary(WelcomeSchema, message), { topic: "" });
}
