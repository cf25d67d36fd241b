/** Replays the transcripts on standard input, one a line; the first that this client answers otherwise ends it. */

import { createInterface } from "node:readline";

import { readTranscript, replay } from "./transcripts.js";

let count = 0;
for await (const line of createInterface({ input: process.stdin })) {
  replay(readTranscript(line));
  count += 1;
}
console.log(count);
