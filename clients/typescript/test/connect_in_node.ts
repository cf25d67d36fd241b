/** The calls of `connect.ts` in Node, as the first argument says in JSON; prints what became of them. */

import { calls } from "./connect.js";

console.log(JSON.stringify({ kind: "called", results: await calls(JSON.parse(process.argv[2]!)) }));
