/**
 * Sessions that another program drives, as the simulation does. Each line on standard input is one call of a session:
 *
 *     {"session": name, "call": name, "args": [...]}
 *
 * spelt as in transcripts, but that a frame is the bytes of a gateway. `begin` makes a session in place of the one that
 * had the name. Each line of output is what the call gave, and where the session stands; a frame to be sent is its bytes.
 */

import { createInterface } from "node:readline";

import { RUN_CHAINS } from "../src/core/chains.js";
import { SESSION_LIMITS, type Command } from "../src/core/commands.js";
import { Session } from "../src/core/session.js";
import { decodeServerFrame, encodeClientFrame } from "../src/wire.js";
import { spelt, tell, translated } from "./transcripts.js";

interface Call {
  readonly session: string;
  readonly call: string;
  readonly args: readonly unknown[];
}

const sessions = new Map<string, Session>();

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(spelt(answer(translated(JSON.parse(line)) as Call)))}\n`);
}

function answer({ session: name, call, args }: Call) {
  if (call === "begin") {
    const [deviceId, buildId] = args as [string, string];
    sessions.set(name, new Session(deviceId, buildId, SESSION_LIMITS, RUN_CHAINS));
  }
  const session = sessions.get(name)!;
  const commands = call === "begin" ? [] : tell(session, call, call === "frame" ? read(args) : args);
  const { state, generation, wakeAtMs } = session;
  return { commands: commands.map(written), state, generation, wakeAtMs };
}

function read([generation, bytes, at]: readonly unknown[]): unknown[] {
  return [generation, decodeServerFrame(Buffer.from(bytes as string, "hex")), at];
}

function written(command: Command) {
  return command.kind === "send" ? { ...command, frame: encodeClientFrame(command.frame) } : command;
}
