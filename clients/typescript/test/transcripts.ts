/** Transcripts of Python sessions, which `libs/oa_khala/client/tests/transcripts.py` writes, told again. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";

import { NO_CHAINS, SESSION_LIMITS, type Chains, type Command } from "../src/core/commands.js";
import { Session } from "../src/core/session.js";
import type { Counts } from "../src/core/topics.js";

const REPOSITORY = new URL("../../../../", import.meta.url);
const VECTORS = new URL("libs/oa_khala/client/tests/vectors/", REPOSITORY);
export const GOLDEN = new URL("tests/contract/vectors/", REPOSITORY);

const BYTES: ReadonlySet<string> = new Set(["payload", "chain", "follows"]);
// Values that are names of ours, and so are spelt as JavaScript spells names.
const NAMES: ReadonlySet<string> = new Set(["kind", "state", "call"]);

/** One call, its arguments, what it gave, and where the session stood then. */
export interface Step {
  readonly call: string;
  readonly args: readonly unknown[];
  readonly commands: readonly unknown[];
  readonly state: string;
  readonly generation: number;
  readonly wakeAtMs: number | null;
}

export interface Transcript {
  readonly chains: string;
  readonly grants: readonly string[];
  readonly counts: Counts;
  readonly steps: readonly Step[];
}

const CONCATENATED: Chains = {
  start: (topic) => new Uint8Array(topic.startsWith("run:") ? [0x30] : []),
  after: (chain, payload) => new Uint8Array([...chain, ...payload]),
};

/** The transcripts that every client is held against, by name. */
export function vectors(): [name: string, transcript: Transcript][] {
  const names = readdirSync(VECTORS).filter((name) => name.endsWith(".json"));
  return names.map((name) => [name, readTranscript(readFileSync(new URL(name, VECTORS), "utf-8"))]);
}

/** A transcript from its JSON. */
export function readTranscript(text: string): Transcript {
  return translated(JSON.parse(text)) as Transcript;
}

/** Tells a new session what the transcript says, and throws where it answers otherwise. */
export function replay({ chains, grants, counts, steps }: Transcript): void {
  const values = chains === "concatenated" ? CONCATENATED : NO_CHAINS;
  const session = new Session("dev_1", "test/1", SESSION_LIMITS, values, grants);
  steps.forEach(({ call, args, ...answer }, index) => {
    const commands = tell(session, call, args);
    const { state, generation, wakeAtMs } = session;
    assert.deepEqual({ commands, state, generation, wakeAtMs }, answer, `step ${index}: ${call}`);
  });
  assert.deepEqual(session.counts, counts, "counts");
}

/** What a session gives, told `call` with the arguments of a transcript. */
export function tell(session: Session, call: string, args: readonly unknown[]): Command[] {
  const method = session[call as "start"] as (...args: unknown[]) => Command[];
  return method.apply(session, call === "token" ? [syncToken(args[0]), args[1]] : [...args]).map(sorted);
}

function syncToken(argument: unknown): unknown {
  const { topics, refused, ...rest } = argument as { topics: string[]; refused: [string, string][] };
  return { ...rest, topics: new Set(topics), refused: new Map(refused) };
}

function sorted(command: Command): Command {
  return command.kind === "needToken" ? { ...command, topics: [...command.topics].sort() } : command;
}

/** A value of a transcript as TypeScript has it. */
export function translated(value: unknown, name = ""): unknown {
  if (Array.isArray(value)) return value.map((each) => translated(each));
  if (typeof value === "string" && BYTES.has(name)) return new Uint8Array(Buffer.from(value, "hex"));
  if (typeof value === "string" && NAMES.has(name)) return camel(value);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [camel(key), translated(each, key)]));
}

/** The same the other way: a value as transcripts have it. */
export function spelt(value: unknown, name = ""): unknown {
  if (Array.isArray(value)) return value.map((each) => spelt(each));
  if (value instanceof Uint8Array) return Buffer.from(value).toString("hex");
  if (typeof value === "string" && NAMES.has(name)) return snake(value);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [snake(key), spelt(each, key)]));
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function camel(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
