/** All topics of a session: which of them to ask for, and when. */

import type { Chains, SessionLimits, TopicFailed } from "./commands.js";
import { NEVER } from "./deadlines.js";
import type { Cursor, Subscribe } from "./frames.js";
import { Topic, type Counts, type Phase } from "./topics.js";

const CARRIED: ReadonlySet<Phase> = new Set(["asked", "following", "awaitingSnapshot"]);
const REFUSED: Readonly<Record<string, string>> = {
  invalid_topic: "there is no topic of this form",
  too_many_topics: "a client may not follow more topics; leave another one first, or follow it with another client",
};

/** The topics by name. A failed topic stays, so that it isn't tried again, until it is followed anew. */
export class Subscriptions {
  readonly counts: Counts = { applied: 0, replayed: 0, repaired: 0, repeated: 0, unknown: 0 };
  readonly #limits: SessionLimits;
  readonly #chains: Chains;
  readonly #topics = new Map<string, Topic>();

  constructor(limits: SessionLimits, chains: Chains) {
    this.#limits = limits;
    this.#chains = chains;
  }

  /** Follow one more topic, from `cursor` on. False when it is already followed. */
  follow(name: string, cursor: Cursor | null, takesSnapshots = false): boolean {
    const known = this.#topics.get(name);
    if (known !== undefined && known.phase !== "failed") return false;
    this.#topics.set(
      name,
      new Topic(name, cursor, this.#chains, this.counts, takesSnapshots, this.#limits.maxSnapshotBytes),
    );
    return true;
  }

  /** Forget the topic. False when a gateway has nothing to end: the topic was not followed, or had failed. */
  unfollow(name: string): boolean {
    const known = this.#topics.get(name);
    this.#topics.delete(name);
    return known !== undefined && known.phase !== "failed";
  }

  /** Return the topic; undefined when it is not followed. */
  get(name: string): Topic | undefined {
    return this.#topics.get(name);
  }

  /** Names of all topics. */
  get names(): readonly string[] {
    return [...this.#topics.keys()];
  }

  /** Names of the topics that need a token. */
  get wanted(): readonly string[] {
    return this.#all().flatMap((topic) => (topic.phase === "failed" ? [] : [topic.name]));
  }

  /** Names of the topics that the current connection carries, or has been asked to carry. */
  get carried(): readonly string[] {
    return this.#all().flatMap((topic) => (CARRIED.has(topic.phase) ? [topic.name] : []));
  }

  /** Whether one of `names` waits to be asked for but is not granted by the token. */
  lacking(names: readonly string[], grants: (topic: string) => boolean): boolean {
    return this.#idle(names).some((topic) => !grants(topic.name));
  }

  /** Return the frames that ask for those of `names` that wait for it and are granted. */
  requests(names: readonly string[], grants: (topic: string) => boolean): Subscribe[] {
    const ready = this.#idle(names).filter((topic) => grants(topic.name));
    const frames: Subscribe[] = [];
    for (let start = 0; start < ready.length; start += this.#limits.subscribeBatch) {
      const batch = ready.slice(start, start + this.#limits.subscribeBatch);
      const takesSnapshots = batch.flatMap((topic) => (topic.takesSnapshots ? [topic.name] : []));
      frames.push({ kind: "subscribe", topics: batch.map((topic) => [topic.name, topic.cursor]), takesSnapshots });
      for (const topic of batch) topic.asked();
    }
    return frames;
  }

  /** Fail the topic `name`, which the token does not grant, or which is one too many. */
  refuse(name: string, reason: string): TopicFailed[] {
    const topic = this.#topics.get(name);
    if (topic === undefined || topic.phase === "failed") return [];
    topic.phase = "failed";
    const message = REFUSED[reason] ?? "the token does not grant this topic";
    return [{ kind: "topicFailed", topic: name, reason, message }];
  }

  /** When the first waiting topic is asked for again. */
  get retryAtMs(): number {
    return Math.min(NEVER, ...this.#waiting().map((topic) => topic.retryAtMs));
  }

  /** Return the topics whose wait is over; they can be asked for again. */
  wake(nowMs: number): string[] {
    const due = this.#waiting().filter((topic) => nowMs >= topic.retryAtMs);
    for (const topic of due) topic.phase = "idle";
    return due.map((topic) => topic.name);
  }

  /** Note for all topics that the connection is gone. */
  cut(): void {
    for (const topic of this.#topics.values()) topic.cut();
  }

  #all(): Topic[] {
    return [...this.#topics.values()];
  }

  #idle(names: readonly string[]): Topic[] {
    return names.flatMap((name) => this.#topics.get(name) ?? []).filter((topic) => topic.phase === "idle");
  }

  #waiting(): Topic[] {
    return this.#all().filter((topic) => topic.phase === "waiting");
  }
}
