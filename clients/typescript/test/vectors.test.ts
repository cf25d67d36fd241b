import assert from "node:assert/strict";
import { test } from "node:test";

import { replay, vectors } from "./transcripts.js";

for (const [name, transcript] of vectors()) {
  test(`a session answers as the vector ${name} says`, () => replay(transcript));
}

test("another answer than the vector's is noticed", () => {
  const [, { steps, ...rest }] = vectors().find(
    ([name]) => name === "a_new_client_gets_a_token_connects_subscribes_and_catches_up.json",
  )!;
  const last = steps.at(-1)!;
  const otherwise = [...steps.slice(0, -1), { ...last, wakeAtMs: 1 }];
  assert.throws(() => replay({ ...rest, steps: otherwise }), /step \d+: frame/);
  assert.throws(() => replay({ ...rest, counts: { ...rest.counts, applied: 7 }, steps }), /counts/);
});
