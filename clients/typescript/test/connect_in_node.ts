/** The calls and the sync token of `connect.ts` in Node, as the first argument says in JSON; prints what became of them. */

import { calls, minted } from "./connect.js";

const options = JSON.parse(process.argv[2]!);
console.log(JSON.stringify({ kind: "called", results: await calls(options), minted: await minted(options) }));
