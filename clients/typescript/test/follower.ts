/**
 * Follows a topic and prints every update as a line of JSON. Told by JSON in its first argument: `khalaUrl`, `topic`,
 * `tokens` (as many sync tokens as are needed, one after the other), and maybe `cursor` as text. On standard input it
 * takes the orders `suspend`, `resume`, `counts` and `close`; it ends with it.
 */

import { createInterface } from "node:readline";

import { WebSocket } from "ws";

import { KhalaClient, readCursor, Refusal, writeCursor, type WebSocketClass } from "../src/index.js";

interface Options {
  readonly khalaUrl: string;
  readonly topic: string;
  readonly tokens: string[];
  readonly cursor?: string;
}

const { khalaUrl, topic, tokens, cursor }: Options = JSON.parse(process.argv[2]!);
const say = (line: object): void => console.log(JSON.stringify(line));

const client = new KhalaClient({
  tokens: async (topics) => ({
    token: tokens.length > 1 ? tokens.shift()! : tokens[0]!,
    topics,
    expiresInMs: 300_000,
    khalaUrl,
  }),
  deviceId: "dev_1",
  webSocket: WebSocket as unknown as WebSocketClass,
  onConnection: (open, message) => say({ kind: "connection", open, message }),
});

const orders = createInterface({ input: process.stdin });
orders.on("close", () => process.exit());
orders.on("line", (order) => {
  if (order === "counts") say({ kind: "counts", ...client.counts });
  else client[order as "suspend" | "resume" | "close"]();
});

try {
  for await (const update of client.topic(topic, readCursor(cursor ?? ""))) {
    if (!("payload" in update)) say(update);
    else say({ ...update, payload: Buffer.from(update.payload).toString("hex"), cursor: writeCursor(update.cursor) });
  }
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  say({ kind: "refused", reason: error.reason, message: error.message });
}
process.exit();
