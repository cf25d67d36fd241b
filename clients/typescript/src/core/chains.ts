/** Chain values of the topics that a client follows: topics of runs have one, as receipts do. */

import type { Chains } from "./commands.js";
import { NO_BYTES } from "./frames.js";
import { sha256 } from "./sha256.js";

const DOMAIN = "openagents.run.v1:";
const RUN_EVENTS = /^run:(run_[0-7][0-9A-HJKMNP-TV-Z]{25}):events$/;

/** `Chains` for topics of runs: chain_0 = SHA-256(domain ‖ run id), chain_n = SHA-256(chain_{n-1} ‖ payload). */
export const RUN_CHAINS: Chains = {
  start: (topic) => {
    const runId = RUN_EVENTS.exec(topic)?.[1];
    return runId === undefined ? NO_BYTES : sha256(new TextEncoder().encode(DOMAIN + runId));
  },
  after: (chain, payload) => sha256(chain, payload),
};
