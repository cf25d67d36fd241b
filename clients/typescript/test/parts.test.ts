import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { RUN_CHAINS } from "../src/core/chains.js";
import { actionOf, isFinal, isReason, reasonOf } from "../src/core/catalogue.js";
import { sha256 } from "../src/core/sha256.js";
import { NEXT, after, allows, isRunning, type State, type Step } from "../src/core/states.js";
import { MemoryCursors, readCursor, StorageCursors, writeCursor } from "../src/cursors.js";
import { Inbox } from "../src/inbox.js";

const T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events";
const CURSOR = { epoch: "e1", appliedSeq: 7, chain: sha256() };

test("SHA-256 is that of everybody, whatever the length and however it is cut", () => {
  for (const length of [0, 1, 3, 55, 56, 57, 63, 64, 65, 119, 120, 1_000, 100_003]) {
    const data = Uint8Array.from({ length }, (_, i) => (i * 7 + length) % 256);
    const expected = new Uint8Array(createHash("sha256").update(data).digest());
    assert.deepEqual(sha256(data), expected, `${length}`);
    assert.deepEqual(sha256(data.subarray(0, length >> 1), data.subarray(length >> 1)), expected);
  }
});

test("the chain of a run begins with its id, and goes on over the payloads; other topics have none", () => {
  const start = createHash("sha256").update("openagents.run.v1:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X").digest();
  assert.deepEqual(RUN_CHAINS.start(T), new Uint8Array(start));
  const next = createHash("sha256").update(start).update("payload").digest();
  assert.deepEqual(RUN_CHAINS.after(new Uint8Array(start), Buffer.from("payload")), new Uint8Array(next));
  assert.equal(RUN_CHAINS.start("user:usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X:runs").length, 0);
});

test("the catalogue says what to do about a reason, and a new one is worth another try", () => {
  assert.equal(actionOf("retention_floor_breach"), "resync");
  assert.equal(actionOf("token_revoked"), "reauthenticate");
  assert.equal(actionOf("from_2040"), "retry");
  assert.deepEqual(["protocol_violation", "forbidden_topic", "unavailable"].map(isFinal), [true, true, false]);
  assert.deepEqual(["unavailable", "from_2040", ""].map(isReason), [true, false, false]);
  assert.deepEqual([reasonOf(15), reasonOf(9_999)], ["unavailable", "internal"]);
});

test("what is not in the table of states does not happen", () => {
  const steps: Step[] = ["start", "dial", "connected", "welcomed", "lost", "suspend", "resume", "stop"];
  for (const state of Object.keys(NEXT) as State[]) {
    for (const step of steps) {
      if (allows(state, step)) assert.equal(after(state, step), NEXT[state][step]);
      else assert.throws(() => after(state, step), new RegExp(`${step} can't happen in ${state}`));
    }
  }
  assert.deepEqual((Object.keys(NEXT) as State[]).filter(isRunning), ["noToken", "connecting", "greeting", "open"]);
});

test("a cursor is the same after it has been stored", () => {
  const storage = new Map<string, string>();
  const cursors = new StorageCursors({
    getItem: (key) => storage.get(key) ?? null,
    setItem: (key, value) => void storage.set(key, value),
    removeItem: (key) => void storage.delete(key),
  });
  for (const store of [cursors, new MemoryCursors()]) {
    assert.equal(store.load(T), null);
    store.save(T, CURSOR);
    assert.deepEqual(store.load(T), CURSOR);
    store.drop(T);
    assert.equal(store.load(T), null);
  }
});

test("a text that holds no cursor is none", () => {
  assert.deepEqual(readCursor(writeCursor({ ...CURSOR, chain: new Uint8Array(0) }))?.chain.length, 0);
  assert.equal(readCursor(writeCursor({ ...CURSOR, epoch: "😀".repeat(64) }))?.epoch.length, 128);
  const damaged = [
    "",
    "null",
    "7",
    "[]",
    "{}",
    '{"epoch":"e1","appliedSeq":-1,"chain":""}',
    '{"epoch":"e1","appliedSeq":1.5,"chain":""}',
    '{"epoch":"\\u0000","appliedSeq":1,"chain":""}',
    `{"epoch":"${"é".repeat(65)}","appliedSeq":1,"chain":""}`,
  ];
  for (const text of [...damaged, '{"epoch":"e1","appliedSeq":1,"chain":"00"}', writeCursor(CURSOR).slice(1)]) {
    assert.equal(readCursor(text), null, text);
  }
});

test("an inbox gives what waits before it ends, and says when it is full", async () => {
  const inbox = new Inbox<string>({ maxUpdates: 4, maxBytes: 10 }, (text) => text.length);
  for (const text of ["a", "b", "c"]) inbox.put(text);
  assert.deepEqual([inbox.full, inbox.hasRoom], [false, false]);
  inbox.put("seven77");
  assert.equal(inbox.full, true);
  inbox.end(new Error("over"));
  inbox.put("late");
  const taken = [await inbox.take(), await inbox.take(), await inbox.take()];
  assert.deepEqual([...taken, inbox.full, inbox.hasRoom], ["a", "b", "c", false, false]);
  assert.equal(await inbox.take(), "seven77");
  await assert.rejects(inbox.take(), /over/);
  const large = new Inbox<string>({ maxUpdates: 4, maxBytes: 10 }, (text) => text.length);
  large.put("a".repeat(10));
  assert.equal(large.full, true);
});
