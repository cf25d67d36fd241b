import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";

import {
  KhalaClient,
  MemoryCursors,
  Refusal,
  runsOf,
  type ClientOptions,
  type CursorStore,
  type Cursor,
  type SyncGrant,
  type Update,
} from "../src/index.js";
import { DeliveryPlan } from "../src/gen/openagents/sync/v1/frame_pb.js";
import { error, event, Gateway, heartbeat, snapshot, subscribed, T, URL_OF_GATEWAY } from "./gateway.js";

const NO_WAIT = { connectTimeoutMs: 600_000, helloTimeoutMs: 600_000 };

function clientOf(gateway: Gateway, options: Partial<ClientOptions> = {}): KhalaClient {
  const { tokens, webSocket } = gateway;
  return new KhalaClient({
    tokens,
    deviceId: "dev_1",
    webSocket,
    ...options,
    limits: { ...NO_WAIT, ...options.limits },
  });
}

function said(update: Update): string {
  if (update.kind === "caughtUp") return `caughtUp ${update.seq}`;
  if (update.kind === "restarted") return `restarted ${update.reason}`;
  return `${update.kind} ${update.seq} ${new TextDecoder().decode(update.payload)}`;
}

/** The next `count` updates, without ending the loop. */
async function take(updates: AsyncGenerator<Update, void>, count: number): Promise<string[]> {
  const taken: string[] = [];
  while (taken.length < count) {
    const { value, done } = await updates.next();
    if (done) return [...taken, "end"];
    taken.push(said(value));
  }
  return taken;
}

const forgetful = { load: () => null, save: () => {}, drop: () => {} };

function gatewayWith(...events: string[]): Gateway {
  const gateway = new Gateway();
  gateway.events = events;
  return gateway;
}

async function rejection(work: Promise<unknown>): Promise<Refusal> {
  const error = await work.then(
    () => assert.fail("it was not refused"),
    (error: unknown) => error,
  );
  assert(error instanceof Refusal, String(error));
  return error;
}

test("what a topic has comes first, then what happens", async () => {
  const gateway = gatewayWith("a", "b");
  const client = clientOf(gateway);
  const updates = client.topic(T);
  assert.deepEqual(await take(updates, 3), ["event 1 a", "event 2 b", "caughtUp 2"]);
  gateway.append("c");
  assert.deepEqual(await take(updates, 1), ["event 3 c"]);
  assert.deepEqual(client.counts, { applied: 3, replayed: 2, repaired: 0, repeated: 0, unknown: 0 });
  client.close();
  assert.deepEqual(await take(updates, 1), ["end"]);
  assert.equal(gateway.socket.closed, 1000);
  assert.equal((await rejection(client.topic(T).next())).reason, "cancelled");
});

test("after a cut it goes on where it was, and only a hole counts as repaired", async () => {
  const gateway = gatewayWith("a");
  const heard: [boolean, string][] = [];
  const client = clientOf(gateway, { onConnection: (open, message) => void heard.push([open, message]) });
  const updates = client.topic(T);
  await take(updates, 2);
  gateway.events.push("b");
  gateway.socket.ends(1006);
  assert.deepEqual(await take(updates, 2), ["event 2 b", "caughtUp 2"]);
  gateway.events.push("c");
  gateway.append("d");
  assert.deepEqual(await take(updates, 3), ["event 3 c", "event 4 d", "caughtUp 4"]);
  gateway.socket.says(event(4, "d"));
  assert.deepEqual(gateway.heard, ["hello", "subscribe from the start", "hello", "subscribe 1", "subscribe 2"]);
  assert.deepEqual(client.counts, { applied: 4, replayed: 4, repaired: 2, repeated: 1, unknown: 0 });
  assert.deepEqual(heard, [
    [true, ""],
    [false, "closed with 1006"],
    [true, ""],
  ]);
  client.close();
});

test("what throws when it hears of the connection breaks nothing", async (context) => {
  const gateway = gatewayWith("a");
  const thrown: unknown[] = [];
  context.mock.method(globalThis, "queueMicrotask", (surface: () => void) => {
    try {
      surface();
    } catch (error) {
      thrown.push(error);
    }
  });
  const broken = new Error("no such element");
  const client = clientOf(gateway, {
    onConnection: () => {
      throw broken;
    },
  });
  const updates = client.topic(T);
  await take(updates, 2);
  gateway.events.push("b");
  gateway.socket.ends(1006);
  assert.deepEqual(await take(updates, 2), ["event 2 b", "caughtUp 2"]);
  assert.deepEqual(thrown, [broken, broken, broken]);
  client.close();
});

test("a signal ends the loop over a topic to which nothing happens, and it alone", async () => {
  const gateway = gatewayWith("a");
  const client = clientOf(gateway);
  const leaving = new AbortController();
  const updates = client.topic(T, undefined, { signal: leaving.signal });
  await take(updates, 2);
  const next = updates.next();
  leaving.abort();
  assert.equal((await next).done, true);
  assert.deepEqual(gateway.heard.at(-1), "unsubscribe");
  assert.deepEqual(await take(client.topic(T, undefined, { signal: leaving.signal }), 1), ["end"]);
  assert.deepEqual(await take(client.topic(T, null, { signal: new AbortController().signal }), 1), ["event 1 a"]);
  client.close();
});

test("a topic that is left by its signal may be followed anew at once", async () => {
  const gateway = gatewayWith("a", "b");
  const client = clientOf(gateway);
  const leaving = new AbortController();
  const left = client.topic(T, undefined, { signal: leaving.signal });
  assert.deepEqual(await take(left, 1), ["event 1 a"]);
  const next = left.next(); // "b" waits, or is on its way
  leaving.abort();
  const anew = client.topic(T);
  assert.deepEqual(await take(anew, 2), ["event 2 b", "caughtUp 2"]);
  assert.equal((await next).done, true);
  gateway.append("c");
  assert.deepEqual(await take(anew, 1), ["event 3 c"]);
  client.close();
});

test("a signal that aborts while the cursor is looked up asks for nothing", async () => {
  const gateway = gatewayWith("a");
  const leaving = new AbortController();
  const cursors = { ...forgetful, load: () => (leaving.abort(), Promise.resolve(null)) };
  const client = clientOf(gateway, { cursors });
  assert.deepEqual(await take(client.topic(T, undefined, { signal: leaving.signal }), 1), ["end"]);
  assert.deepEqual(gateway.heard, []);
  client.close();
});

test("a loop ends although its store of cursors never answers", { timeout: 20_000 }, async () => {
  const gateway = gatewayWith("a");
  const leaving = new AbortController();
  const client = clientOf(gateway, { cursors: { ...forgetful, load: () => new Promise<null>(() => {}) } });
  const left = take(client.topic(T, undefined, { signal: leaving.signal }), 1);
  leaving.abort();
  assert.deepEqual(await left, ["end"]);
  const closed = take(client.topic(T), 1);
  client.close();
  assert.deepEqual(await closed, ["end"]);
  assert.deepEqual(gateway.heard, []);
});

test("a loop ends although its store of cursors never says that it has saved", { timeout: 20_000 }, async () => {
  const gateway = gatewayWith("a", "b");
  const saved: number[] = [];
  const save = (_topic: string, cursor: Cursor): Promise<void> => {
    saved.push(cursor.appliedSeq);
    return new Promise(() => {});
  };
  const client = clientOf(gateway, { cursors: { ...forgetful, save } });
  const leaving = new AbortController();
  const updates = client.topic(T, undefined, { signal: leaving.signal });
  assert.deepEqual(await take(updates, 1), ["event 1 a"]);
  const left = updates.next();
  leaving.abort();
  assert.equal((await left).done, true);
  const others = client.topic(T);
  assert.deepEqual(await take(others, 1), ["event 1 a"]);
  const next = take(others, 3);
  client.close();
  assert.deepEqual(await next, ["event 2 b", "caughtUp 2", "end"]);
  assert.deepEqual(saved, [1, 1, 2]);
});

test("a loop throws when its store of cursors has not answered in time", { timeout: 20_000 }, async () => {
  const never = (): Promise<never> => new Promise(() => {});
  const old = { epoch: "old", appliedSeq: 1, chain: new Uint8Array(0) };
  const stores: [Partial<CursorStore>, string[]][] = [
    [{ load: never }, []],
    [{ save: never }, ["event 1 a"]],
    [{ load: () => old, drop: never }, ["restarted epoch_mismatch"]],
  ];
  for (const [store, before] of stores) {
    const client = clientOf(gatewayWith("a"), { cursors: { ...forgetful, ...store }, limits: { storeTimeoutMs: 10 } });
    const updates = client.topic(T);
    assert.deepEqual(await take(updates, before.length), before);
    const refusal = await rejection(updates.next());
    assert.deepEqual([refusal.reason, refusal.message.includes("within 10 ms")], ["deadline_exceeded", true]);
    client.close();
  }
});

test("a wait that is longer than a timer can be is none that fires at once", { timeout: 20_000 }, async (context) => {
  const gateway = gatewayWith("a");
  const client = clientOf(gateway);
  const updates = client.topic(T);
  await take(updates, 2);
  const delays: number[] = [];
  context.mock.method(globalThis, "setTimeout", (_work: () => void, delayMs: number) => void delays.push(delayMs));
  gateway.socket.says(error("overloaded", "", 2 ** 32 - 1));
  gateway.socket.ends(1013);
  assert(delays.length > 0 && delays.every((delayMs) => delayMs < 2 ** 31), String(delays));
  client.close();
});

test("an element counts as applied when the next one is asked for", async () => {
  const gateway = gatewayWith("a", "b", "c");
  const cursors = new MemoryCursors();
  const client = clientOf(gateway, { cursors });
  const seen: string[] = [];
  for await (const update of client.topic(T)) {
    seen.push(said(update));
    if (seen.length === 2) break;
  }
  assert.equal(cursors.load(T)?.appliedSeq, 1);
  assert.deepEqual(gateway.heard.at(-1), "unsubscribe");
  assert.deepEqual(await take(client.topic(T), 1), ["event 2 b"]);
  assert.deepEqual(gateway.heard.at(-1), "subscribe 1");
  client.close();
});

test("a cursor of one's own counts, and one of another lineage starts the topic over", async () => {
  const gateway = gatewayWith("a", "b");
  const cursors = new MemoryCursors();
  const client = clientOf(gateway, { cursors });
  const stored = { epoch: "old", appliedSeq: 9, chain: new Uint8Array(0) };
  cursors.save(T, stored);
  const updates = client.topic(T, { ...stored, appliedSeq: 1 });
  assert.deepEqual(await take(updates, 1), ["restarted epoch_mismatch"]);
  assert.deepEqual(cursors.load(T), stored);
  assert.deepEqual(await take(updates, 1), ["event 1 a"]);
  assert.equal(cursors.load(T), null);
  assert.deepEqual(gateway.heard, ["hello", "subscribe 1", "subscribe from the start"]);
  assert.equal(client.counts.repaired, 0);
  client.close();
});

test("a snapshot replaces what was there", async () => {
  const gateway = gatewayWith();
  gateway.serve = (socket) => {
    socket.says(subscribed("e1", 7, 7, DeliveryPlan.SNAPSHOT));
    socket.says(snapshot(7, "all"));
    socket.says(event(8, "more"));
  };
  const client = clientOf(gateway);
  assert.deepEqual(await take(client.topic(T), 2), ["snapshot 7 all", "event 8 more"]);
  client.close();
});

test("a snapshot in parts is handed out once it is whole", async () => {
  const gateway = gatewayWith();
  gateway.serve = (socket) => {
    socket.says(subscribed("e1", 7, 8, DeliveryPlan.SNAPSHOT));
    socket.says(snapshot(7, "al", 1, 2));
    socket.says(snapshot(7, "l", 2, 2));
    socket.says(event(8, "more"));
  };
  const client = clientOf(gateway);
  const updates = client.topic(T, null, { snapshots: true });
  assert.deepEqual(await take(updates, 2), ["snapshot 7 all", "event 8 more"]);
  assert.deepEqual(gateway.heard, ["hello", "subscribe with a snapshot"]);
  client.close();
});

test("a snapshot that is too large ends its topic, and the gateway is told", async () => {
  const gateway = gatewayWith();
  gateway.serve = (socket) => {
    socket.says(subscribed("e1", 7, 8, DeliveryPlan.SNAPSHOT));
    socket.says(snapshot(7, "four", 1, 3));
    socket.says(snapshot(7, "more", 2, 3));
  };
  const client = clientOf(gateway, { limits: { maxSnapshotBytes: 6 } });
  await assert.rejects(take(client.topic(T, null, { snapshots: true }), 1), { reason: "payload_too_large" });
  assert.deepEqual(gateway.heard.slice(2), ["unsubscribe"]);
  client.close();
});

test("a topic whose reader is slow is left, and followed again from where it was", async () => {
  const events = Array.from({ length: 20 }, (_, i) => `${i + 1}`);
  const gateway = gatewayWith(...events);
  const client = clientOf(gateway, { limits: { maxUpdates: 8 } });
  const updates = client.topic(T);
  assert.deepEqual(await take(updates, 1), ["event 1 1"]);
  assert.deepEqual(gateway.heard.slice(1), ["subscribe from the start", "unsubscribe"]);
  const seen = await take(updates, 20);
  assert.deepEqual(seen, [...events.slice(1).map((text) => `event ${text} ${text}`), "caughtUp 20"]);
  assert.deepEqual(gateway.heard.slice(3, 5), ["subscribe 8", "unsubscribe"]);
  client.close();
});

test("a topic that can't be had ends its loop with the reason, and may be asked for again", async () => {
  const gateway = gatewayWith("a");
  gateway.refusal = "forbidden_topic";
  const client = clientOf(gateway);
  assert.equal((await rejection(take(client.topic(T), 1))).reason, "forbidden_topic");
  gateway.refusal = undefined;
  assert.deepEqual(await take(client.topic(T), 1), ["event 1 a"]);
  assert.equal((await rejection(client.topic(T).next())).reason, "already_exists");
  client.close();
});

test("a session that is over ends all loops, and those that come later", async () => {
  const gateway = gatewayWith("a");
  const client = clientOf(gateway);
  const updates = client.topic(T);
  await take(updates, 2);
  gateway.socket.says(error("protocol_violation"));
  gateway.socket.ends(4400);
  const refusal = await rejection(updates.next());
  assert.deepEqual([refusal.reason, refusal.action], ["protocol_violation", "fix_request"]);
  assert.equal((await rejection(client.topic(T).next())).reason, "protocol_violation");
});

test("the reason in a close frame counts where no ERROR came", async () => {
  const gateway = gatewayWith("a");
  const updates = clientOf(gateway).topic(T);
  await take(updates, 2);
  gateway.socket.ends(4426, "unsupported_protocol_version");
  assert.equal((await rejection(updates.next())).reason, "unsupported_protocol_version");
});

test("a gateway of another protocol, or no address, is not tried again", async () => {
  const gateway = gatewayWith("a");
  gateway.protocol = "";
  const other = await rejection(clientOf(gateway).topic(T).next());
  assert.deepEqual([other.reason, gateway.socket.closed], ["unsupported_protocol_version", 4400]);
  const webSocket = class {
    constructor() {
      throw new SyntaxError("no URL");
    }
  };
  const refusal = await rejection(
    clientOf(gateway, { webSocket: webSocket as never })
      .topic(T)
      .next(),
  );
  assert.equal(refusal.reason, "invalid_setting");
});

test("what is no frame cuts the connection, and another one is made", async () => {
  const gateway = gatewayWith("a");
  const client = clientOf(gateway);
  const updates = client.topic(T);
  await take(updates, 2);
  for (const data of ["text", new Uint8Array([0xff]).buffer]) {
    const { socket } = gateway;
    socket.says(data);
    assert.equal(socket.closed, 4400);
    assert.deepEqual(await take(updates, 1), ["caughtUp 1"]);
  }
  client.close();
});

test("payloads of a schema that is not known end the loop", async () => {
  const gateway = gatewayWith();
  gateway.serve = (socket) => {
    socket.says(subscribed("e1", 0, 1));
    socket.says(event(1, "?", 2));
  };
  const client = clientOf(gateway);
  assert.equal((await rejection(client.topic(T).next())).reason, "unsupported_schema_version");
  client.close();
});

test("control is asked again while it has no token to give, and no more when that is final", async () => {
  const gateway = gatewayWith("a");
  const answers = [
    new Refusal("unavailable", "away"),
    new TypeError("a defect"),
    new Refusal("reauth_required", "sign in"),
  ];
  const told: string[] = [];
  const tokens = async (): Promise<never> => {
    throw answers.shift();
  };
  const client = clientOf(gateway, { tokens, onConnection: (_, message) => void told.push(message) });
  assert.equal((await rejection(client.topic(T).next())).reason, "reauth_required");
  assert.deepEqual(told, ["away", "no token: TypeError: a defect", "sign in"]);
});

test("a request for a token that never settles is given up, and what comes of it later is dropped", async () => {
  const gateway = gatewayWith("a");
  const told: string[] = [];
  let asked = 0;
  let settle: (grant: SyncGrant) => void = () => assert.fail();
  const tokens = (topics: readonly string[]): Promise<SyncGrant> => {
    asked += 1;
    return asked === 1 ? new Promise((resolve) => (settle = resolve)) : gateway.tokens(topics);
  };
  const onConnection = (_: boolean, message: string): void => void told.push(message);
  const client = clientOf(gateway, { tokens, onConnection, limits: { tokenTimeoutMs: 10 } });
  const updates = client.topic(T);
  assert.deepEqual(await take(updates, 2), ["event 1 a", "caughtUp 1"]);
  settle({ token: "late", topics: [], expiresInMs: 1, khalaUrl: "ws://x" });
  gateway.append("b");
  assert.deepEqual(await take(updates, 1), ["event 2 b"]);
  assert.deepEqual([asked, told[0]!.startsWith("no token came within 10 ms;")], [2, true]);
  client.close();
});

test("a client that is closed waits for no token", async (context) => {
  const gateway = gatewayWith("a");
  const client = clientOf(gateway, { tokens: () => new Promise(() => {}) });
  const cleared: unknown[] = [];
  const next = client.topic(T).next();
  await setImmediate();
  const clear = globalThis.clearTimeout;
  context.mock.method(globalThis, "clearTimeout", (timer: NodeJS.Timeout | undefined) => {
    cleared.push(timer);
    clear(timer);
  });
  client.close();
  assert.equal((await next).done, true);
  assert(cleared.some((timer) => timer !== undefined));
});

test("what has no text is a failure like any other", async () => {
  const gateway = gatewayWith("a");
  const thrown = [Object.create(null), Symbol("s"), undefined];
  const tokens = (topics: readonly string[]): Promise<SyncGrant> =>
    thrown.length > 0 ? Promise.reject(thrown.shift()) : gateway.tokens(topics);
  const client = clientOf(gateway, { tokens });
  assert.deepEqual(await take(client.topic(T), 1), ["event 1 a"]);
  client.close();
});

test("a client that is closed or suspended when it hears of an end connects no more", async (context) => {
  context.mock.method(Math, "random", () => 0); // it would connect at once
  for (const end of ["close", "suspend"] as const) {
    const gateway = gatewayWith("a");
    gateway.hear = () => {}; // so the client gives it up
    const ended = new Promise<void>((resolve) => {
      const onConnection = (open: boolean): void => {
        if (open) return;
        client[end]();
        resolve();
      };
      const client = clientOf(gateway, { onConnection, limits: { helloTimeoutMs: 1 } });
      void client.topic(T).next();
    });
    await ended;
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual([end, gateway.sockets.length], [end, 1]);
  }
});

test("control is not asked again before it wants to be", async () => {
  const gateway = gatewayWith("a");
  const askedAtMs: number[] = [];
  const client = clientOf(gateway, {
    tokens: async (topics) => {
      askedAtMs.push(performance.now());
      if (askedAtMs.length === 1) throw new Refusal("rate_limited", "slower", { retryAfterMs: 300 });
      return gateway.tokens(topics);
    },
  });
  await take(client.topic(T), 1);
  // The backoff alone is at most 250 ms.
  assert(askedAtMs[1]! - askedAtMs[0]! >= 299);
  client.close();
});

test("a topic that control refuses ends with control's reason", async () => {
  const gateway = gatewayWith("a");
  const grant = {
    token: "token",
    topics: [],
    expiresInMs: 300_000,
    refused: { [T]: "owner_mismatch" },
    khalaUrl: "ws://x",
  };
  const client = clientOf(gateway, { tokens: async () => grant });
  assert.equal((await rejection(client.topic(T).next())).reason, "owner_mismatch");
  client.close();
});

test("when none of its topics is granted, a client goes on with those that come later", async () => {
  const gateway = gatewayWith("a");
  const none = new Refusal("forbidden_topic", "no topic was granted", { field: "topics" });
  const client = clientOf(gateway, {
    tokens: async (topics) => (topics.includes(T) ? gateway.tokens(topics) : Promise.reject(none)),
  });
  const refused = ["run:a:events", "run:b:events"].map((name) => rejection(client.topic(name).next()));
  for (const refusal of refused) assert.equal((await refusal).reason, "forbidden_topic");
  assert.deepEqual(await take(client.topic(T), 1), ["event 1 a"]);
  client.close();
});

test("a device that sleeps has no connection, and resumes at its cursor", async () => {
  const gateway = gatewayWith("a");
  const client = clientOf(gateway);
  const updates = client.topic(T);
  await take(updates, 2);
  client.suspend();
  assert.equal(gateway.socket.closed, 1000);
  gateway.events.push("b");
  client.resume();
  assert.deepEqual(await take(updates, 2), ["event 2 b", "caughtUp 2"]);
  assert.deepEqual(gateway.heard.at(-1), "subscribe 1");
  client.close();
});

test("a device that is asleep from the start makes no connection before it wakes", async () => {
  const gateway = gatewayWith("a");
  let asked = 0;
  const client = clientOf(gateway, { tokens: (topics) => ((asked += 1), gateway.tokens(topics)) });
  client.suspend();
  const next = client.topic(T).next();
  await setImmediate();
  assert.equal(asked, 0);
  client.resume();
  assert.equal((await next).value?.kind, "event");
  client.close();
});

test("a page whose timers stand still pings when a frame comes", async (context) => {
  const gateway = gatewayWith("a");
  gateway.idleTimeoutMs = 3;
  const client = clientOf(gateway);
  const updates = client.topic(T);
  context.mock.method(globalThis, "setTimeout", (work: () => void, delayMs: number) => {
    if (delayMs === 0) queueMicrotask(work);
  });
  await take(updates, 2);
  const atMs = performance.now() + 5;
  while (performance.now() < atMs) await setImmediate();
  gateway.socket.says(heartbeat());
  assert.equal(gateway.heard.at(-1), "ping");
  client.close();
});

test("a loop that was left does not set back the cursor of the one that came after it", async () => {
  const gateway = gatewayWith("a", "b");
  const cursors = new MemoryCursors();
  const client = clientOf(gateway, { cursors });
  const leaving = new AbortController();
  const left = client.topic(T, undefined, { signal: leaving.signal });
  assert.deepEqual(await take(left, 1), ["event 1 a"]);
  leaving.abort();
  assert.deepEqual(await take(client.topic(T), 3), ["event 1 a", "event 2 b", "caughtUp 2"]);
  assert.deepEqual(await take(left, 1), ["end"]);
  assert.equal(cursors.load(T)?.appliedSeq, 2);
  client.close();
});

test("what is no cursor is refused, and breaks nothing else", async () => {
  const gateway = gatewayWith("a");
  const read = JSON.parse('{"epoch": "e1", "appliedSeq": 1, "chain": ""}');
  const client = clientOf(gateway, { cursors: { ...forgetful, load: () => ({ ...read, chain: {} }) } });
  const chain = new Uint8Array(0);
  const long = { ...read, chain, epoch: "e".repeat(65) };
  for (const cursor of [undefined, read, "text", long, { ...read, chain, appliedSeq: -1 }, { appliedSeq: 1, chain }]) {
    const refusal = await rejection(client.topic(T, cursor as Cursor | undefined).next());
    assert.deepEqual([refusal.reason, refusal.field], ["invalid_value", "cursor"]);
  }
  assert.deepEqual(await take(client.topic(T, null), 1), ["event 1 a"]);
  client.close();
});

test("what a token source resolves to is a grant, or is asked for again with backoff", async (context) => {
  context.mock.method(Math, "random", () => 0);
  const gateway = gatewayWith("a");
  const whole = { token: "token", topics: [T], expiresInMs: 300_000, khalaUrl: URL_OF_GATEWAY };
  const broken = ["token", "topics", "expiresInMs", "khalaUrl"].map((field) => ({ ...whole, [field]: undefined }));
  const answers: unknown[] = [undefined, ...broken, whole];
  const told: string[] = [];
  const client = clientOf(gateway, {
    tokens: async () => answers.shift() as SyncGrant,
    onConnection: (_, message) => void told.push(message),
  });
  assert.deepEqual(await take(client.topic(T), 1), ["event 1 a"]);
  const fields = told.slice(0, -1).map((message) => /^no token: (\w+) must be/.exec(message)?.[1]);
  assert.deepEqual(fields, ["token", "token", "topics", "expiresInMs", "khalaUrl"]);
  client.close();
});

test("a topic more than a token can name is refused, and the others go on", async () => {
  const gateway = gatewayWith("a", "b", "c");
  const client = clientOf(gateway, { limits: { maxTopics: 1, maxUpdates: 2 } });
  const updates = client.topic(T);
  assert.deepEqual(await take(updates, 1), ["event 1 a"]);
  // The first topic has been left because its reader is slow. It still counts.
  assert.deepEqual(gateway.heard.at(-1), "unsubscribe");
  assert.equal((await rejection(client.topic("user:usr_1:runs").next())).reason, "too_many_topics");
  assert.deepEqual(await take(updates, 3), ["event 2 b", "event 3 c", "caughtUp 3"]);
  client.close();
});

test("an environment that can't write or read messages is refused with what it lacks", (context) => {
  for (const name of ["TextEncoder", "TextDecoder"]) {
    const present = Object.getOwnPropertyDescriptor(globalThis, name)!;
    context.after(() => Object.defineProperty(globalThis, name, present));
    Reflect.deleteProperty(globalThis, name);
    assert.throws(() => clientOf(gatewayWith()), { reason: "invalid_setting", field: name });
    Object.defineProperty(globalThis, name, present);
  }
});

test("a limit that would have a client do nothing, or never rest, is refused with its name", () => {
  const gateway = gatewayWith();
  const wrong = [{ maxUpdates: 0 }, { subscribeBatch: 0 }, { connectTimeoutMs: NaN }, { refreshAtFraction: 0 }];
  for (const limits of [...wrong, { tokenMarginMs: 30_000 }, { maxUpdate: 5 }, { maxBytes: "1" as never }]) {
    const named = { reason: "invalid_setting", field: `limits.${Object.keys(limits)[0]}` };
    assert.throws(() => clientOf(gateway, { limits }), named);
  }
  const { tokens, webSocket } = gateway;
  const limits = { maxBytes: Infinity, maxUpdates: undefined as never };
  new KhalaClient({ tokens, deviceId: "dev_1", webSocket, limits }).close();
});

test("without a WebSocket class it says what to pass", { skip: "WebSocket" in globalThis }, () => {
  assert.throws(() => new KhalaClient({ tokens: gatewayWith().tokens, deviceId: "dev_1" }), /pass one/);
});

const ALL_RUNS = runsOf("org_01J9ZQ6T5W3M8K2N4P7R1S0V6X");

test("all runs of an owner need one token, however many they are", async () => {
  const gateway = gatewayWith("a");
  const asked: (readonly string[])[] = [];
  const tokens = (topics: readonly string[]) => (asked.push(topics), gateway.tokens(topics));
  const client = clientOf(gateway, { tokens, grants: [ALL_RUNS], limits: { maxTopics: 1 } });
  assert.deepEqual(await take(client.topic(T), 1), ["event 1 a"]);
  assert.deepEqual(asked, [[ALL_RUNS]]);
  const later = client.topic(T.replace("V6X", "V6Y"));
  void later.next();
  await setImmediate();
  assert.deepEqual(gateway.heard.slice(2), ["subscribe from the start"]);
  assert.equal((await rejection(client.topic("user:usr_1:runs").next())).reason, "too_many_topics");
  assert.equal(asked.length, 1);
  client.close();
});

test("for an owner that is not granted, topics are asked for by name", async () => {
  const gateway = gatewayWith("a");
  const asked: (readonly string[])[] = [];
  const none = new Refusal("surface_policy_denied", "name the topics", { field: "topics" });
  const tokens = async (topics: readonly string[]) => {
    asked.push(topics);
    return topics.includes(ALL_RUNS) ? Promise.reject(none) : gateway.tokens(topics);
  };
  const client = clientOf(gateway, { tokens, grants: [ALL_RUNS] });
  assert.deepEqual(await take(client.topic(T), 1), ["event 1 a"]);
  assert.deepEqual(asked, [[ALL_RUNS], [T]]);
  client.close();
});

test("what is no owner of runs has no grant", () => {
  for (const id of ["", "run_01J9ZQ6T5W3M8K2N4P7R1S0V6X", "org_1", "org_01J9ZQ6T5W3M8K2N4P7R1S0V6X\n"]) {
    assert.throws(() => runsOf(id), { reason: "invalid_topic", field: "ownerId" });
  }
});

test("tokens that no gateway takes end the client, with the reason of the last", async (context) => {
  context.mock.method(Math, "random", () => 0);
  const gateway = gatewayWith("a");
  let asked = 0;
  const tokens = (topics: readonly string[]) => ((asked += 1), gateway.tokens(topics));
  const client = clientOf(gateway, { tokens, limits: { maxRefusedTokens: 3 } });
  gateway.hear = (socket) => {
    socket.says(error("invalid_token"));
    socket.ends(4401);
  };
  const refusal = await rejection(client.topic(T).next());
  assert.deepEqual([refusal.reason, refusal.action, asked], ["invalid_token", "reauthenticate", 3]);
  assert.match(refusal.message, /^3 tokens in a row were refused/);
  assert.equal((await rejection(client.topic(T).next())).reason, "invalid_token");
});
