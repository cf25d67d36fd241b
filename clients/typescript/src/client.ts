/** A client that follows topics. It drives the pure session with a WebSocket, a clock, and a source of tokens. */

import { isFinal } from "./core/catalogue.js";
import { RUN_CHAINS } from "./core/chains.js";
import type { Apply, Command, Connect, Instant } from "./core/commands.js";
import { SCHEMA_VERSION, type Cursor } from "./core/frames.js";
import { Session } from "./core/session.js";
import type { Counts } from "./core/topics.js";
import { checkedCursor, MemoryCursors, type CursorStore } from "./cursors.js";
import { BUILD_ID, checkedGrant, type TokenSource } from "./control.js";
import { Inbox } from "./inbox.js";
import { checkedLimits, type Limits } from "./limits.js";
import { Refusal } from "./refusal.js";
import { defaultWebSocket, Link, type WebSocketClass } from "./sockets.js";
import { checkEnvironment } from "./wire.js";

/** A timer with a longer delay fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Everything that happens to a followed topic, in order. */
export type Update =
  /** The next element. `snapshot`: it is the topic's whole state and replaces the earlier state. */
  | {
      readonly kind: "event" | "snapshot";
      readonly topic: string;
      readonly seq: number;
      readonly payload: Uint8Array;
      readonly cursor: Cursor;
    }
  /** Everything up to `seq`, the head when the topic was subscribed, has come. Repeated after each reconnect. */
  | { readonly kind: "caughtUp"; readonly topic: string; readonly seq: number }
  /** The earlier updates can't be continued: drop the state made of them. The topic comes again from its start. */
  | { readonly kind: "restarted"; readonly topic: string; readonly reason: string };

export interface ClientOptions {
  /** The source of sync tokens: `controlTokens`, or a function that asks your own server. */
  readonly tokens: TokenSource;
  /** Id of the installation (`dev_…`), as in the token. */
  readonly deviceId: string;
  /** Name and version of the program, for the gateway's logs. */
  readonly clientBuildId?: string;
  /**
   * Topics of owners, such as `runsOf("org_…")`, for which tokens are requested instead of for each such topic by name.
   * A client that follows many runs then needs one token for them, and none for a later run. For an owner that is not
   * granted, the client asks for the topics by name.
   */
  readonly grants?: readonly string[];
  /** Where cursors are kept. The default forgets them with the process. */
  readonly cursors?: CursorStore;
  /** The WebSocket class. Needed in Node before 22, which has none of its own. */
  readonly webSocket?: WebSocketClass;
  /** The gateway's address, if it is not the one that comes with the token. */
  readonly khalaUrl?: string;
  /** Called when the connection opens, and when and why it ends. The client reconnects by itself. */
  readonly onConnection?: (open: boolean, message: string) => void;
  readonly limits?: Partial<Limits>;
}

export interface TopicOptions {
  /**
   * Whether the topic may begin with a snapshot of any size. The snapshot of a run is its current state
   * (`RunSnapshot`), in place of its events up to there. The default is true for lists and false for runs: all of
   * their events come.
   */
  readonly snapshots?: boolean;
  /** Ends the loop when it aborts, even while the topic is quiet. The topic may be followed anew at once. */
  readonly signal?: AbortSignal;
}

interface Followed {
  readonly inbox: Inbox<Update>;
  readonly takesSnapshots: boolean;
  /** Where the topic continues when there is room again; undefined while it is followed. */
  pausedAt?: Cursor | undefined;
}

/** One client of Khala: any number of topics over one connection at a time. */
export class KhalaClient {
  readonly #options: ClientOptions;
  readonly #limits: Limits;
  readonly #cursors: CursorStore;
  readonly #webSocket: WebSocketClass;
  readonly #session: Session;
  readonly #followed = new Map<string, Followed>();
  #url: string;
  #link: { readonly generation: number; readonly cancel: () => void; readonly send: Link["send"] } | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #tokenTimer: ReturnType<typeof setTimeout> | undefined;
  #failure: Refusal | null = null;
  #said = "";

  /** Throws Refusal `invalid_setting` if the environment lacks a class, or if a limit can't be one. */
  constructor(options: ClientOptions) {
    this.#options = options;
    this.#limits = checkedLimits(options.limits);
    checkEnvironment();
    this.#cursors = options.cursors ?? new MemoryCursors();
    this.#webSocket = options.webSocket ?? defaultWebSocket();
    this.#url = options.khalaUrl ?? "";
    const { deviceId, clientBuildId = BUILD_ID, grants = [] } = options;
    this.#session = new Session(deviceId, clientBuildId, this.#limits, RUN_CHAINS, grants);
  }

  /** Counts of what has come so far, over all topics. */
  get counts(): Readonly<Counts> {
    return this.#session.counts;
  }

  /**
   * Follow `name` from `cursor`, or else from the stored cursor, or else from its start. `break` ends the loop, and so
   * does `options.signal` from elsewhere. When the loop asks for the next update, the previous one counts as applied,
   * and its cursor is stored. So after a crash, the element that was being applied may come again. To prevent that,
   * store `update.cursor` in one step with what you make of the element, and pass it here.
   *
   * Throws Refusal when the topic can't be obtained, retrying can't help, the cursor is none (`invalid_value`), or the
   * client is already closed, or the store of cursors does not answer (`deadline_exceeded`); and whatever the store
   * throws.
   */
  async *topic(
    name: string,
    cursor?: Cursor | null,
    options: TopicOptions = {},
  ): AsyncGenerator<Update, void, undefined> {
    if (this.#failure !== null) throw this.#failure;
    if (this.#session.state === "stopped") throw new Refusal("cancelled", "this client is closed; make another one");
    if (this.#followed.has(name)) {
      throw new Refusal("already_exists", "this client follows the topic already; use that loop", { field: "name" });
    }
    // Topics that were left because their readers are slow count here, and not in the session.
    if (!this.#session.hasRoom([...this.#followed.keys(), name])) {
      const text = `a token names at most ${this.#limits.maxTopics} topics; leave one first, or make another client`;
      throw new Refusal("too_many_topics", text, { field: "name" });
    }
    const takesSnapshots = options.snapshots ?? !name.startsWith("run:");
    const followed: Followed = { inbox: new Inbox(this.#limits, sizeOf), takesSnapshots };
    const leave = (): void => this.#leave(name, followed);
    if (options.signal?.aborted) return;
    options.signal?.addEventListener("abort", leave);
    this.#followed.set(name, followed);
    try {
      const from = checkedCursor(
        cursor === undefined ? await this.#answered(this.#cursors.load(name), followed) : cursor,
      );
      if (this.#followed.get(name) !== followed) return;
      this.#do(this.#session.subscribe(name, from, at(), takesSnapshots));
      this.#do(this.#session.start(at()));
      for (;;) {
        const update = await followed.inbox.take();
        if (update === undefined) return;
        this.#unpause(name, followed);
        yield update;
        await this.#applied(followed, update);
      }
    } finally {
      options.signal?.removeEventListener("abort", leave);
      leave();
    }
  }

  async #applied(followed: Followed, update: Update): Promise<void> {
    // A loop that was left may finish its last update when another one has already gone further.
    if ((this.#followed.get(update.topic) ?? followed) !== followed) return;
    if (update.kind === "restarted") await this.#answered(this.#cursors.drop(update.topic), followed);
    else if (update.kind !== "caughtUp")
      await this.#answered(this.#cursors.save(update.topic, update.cursor), followed);
  }

  // A store may never answer, as a database that another tab holds. The loop can be ended meanwhile.
  async #answered<T>(answer: T | Promise<T>, { inbox }: Followed): Promise<T | undefined> {
    if (!(answer instanceof Object) || !("then" in answer)) return answer;
    const timeoutMs = Math.min(this.#limits.storeTimeoutMs, MAX_TIMER_MS);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      const text = `the store of cursors did not answer within ${timeoutMs} ms; let what keeps cursors end its work`;
      const give = (): void => reject(new Refusal("deadline_exceeded", text));
      // A page that was frozen gets its timers first when it goes on, so the second half is for the store's answer.
      timer = setTimeout(() => (timer = setTimeout(give, timeoutMs / 2)), timeoutMs / 2);
    });
    try {
      return await Promise.race([answer, inbox.ended, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #leave(name: string, followed: Followed): void {
    followed.inbox.drop();
    if (this.#followed.get(name) !== followed) return;
    this.#followed.delete(name);
    this.#do(this.#session.unsubscribe(name));
  }

  /**
   * Drop the connection, or make none, until `resume`: the device goes to sleep or offline. Topics may be followed
   * meanwhile.
   */
  suspend(): void {
    this.#do(this.#session.start(at()));
    this.#do(this.#session.suspended());
  }

  /** Connect as soon as the gateway allows, whatever failed before: the device is back. */
  resume(): void {
    this.#do(this.#session.resumed(at()));
  }

  /** End for good. Every loop over a topic ends when it has taken the updates that wait. */
  close(): void {
    this.#do(this.#session.stop());
    this.#endAll(null);
  }

  // ------------------------------------------------------------------------------------------------------- commands

  #do(commands: readonly Command[]): void {
    for (const command of commands) this.#doOne(command);
    clearTimeout(this.#timer);
    const wakeAtMs = this.#session.wakeAtMs;
    if (wakeAtMs === null) return;
    const delayMs = Math.min(Math.max(0, wakeAtMs - at().nowMs), MAX_TIMER_MS);
    this.#timer = setTimeout(() => this.#do(this.#session.timer(at())), delayMs);
  }

  #doOne(command: Command): void {
    switch (command.kind) {
      case "connect":
        // `onConnection` may have suspended or closed the client since the command was given.
        if (command.generation === this.#session.generation) this.#connect(command);
        break;
      case "disconnect":
        this.#disconnect(command.generation);
        break;
      case "send":
        if (this.#link?.generation === command.generation) this.#link.send(command.frame);
        break;
      case "needToken":
        void this.#mint(command.topics);
        break;
      case "apply":
        this.#apply(command);
        break;
      case "resync":
        this.#put(command.topic, { kind: "restarted", topic: command.topic, reason: command.reason });
        break;
      case "live":
        this.#put(command.topic, { kind: "caughtUp", topic: command.topic, seq: command.seq });
        break;
      case "topicFailed":
        this.#followed.get(command.topic)?.inbox.end(new Refusal(command.reason, command.message));
        break;
      case "sessionFailed":
        this.#failure = new Refusal(command.reason, command.message || this.#said || "the session has ended");
        this.#endAll(this.#failure);
    }
  }

  #apply({ topic, cursor, payload, schemaVersion, snapshot }: Apply): void {
    if (schemaVersion !== SCHEMA_VERSION) {
      const text = `the topic has payloads of schema ${schemaVersion}; update this client`;
      this.#followed
        .get(topic)
        ?.inbox.end(new Refusal("unsupported_schema_version", text, { field: "schema_version" }));
      this.#do(this.#session.unsubscribe(topic));
      return;
    }
    this.#put(topic, { kind: snapshot ? "snapshot" : "event", topic, seq: cursor.appliedSeq, payload, cursor });
  }

  #put(topic: string, update: Update): void {
    const followed = this.#followed.get(topic);
    if (followed === undefined) return;
    followed.inbox.put(update);
    // A socket can't be told to wait. So the client leaves a topic whose reader is slow, and continues it later from
    // where it was.
    if (followed.inbox.full && "cursor" in update) {
      followed.pausedAt = update.cursor;
      this.#do(this.#session.unsubscribe(topic));
    }
  }

  #unpause(topic: string, followed: Followed): void {
    const isFollowed = this.#followed.get(topic) === followed;
    if (!isFollowed || followed.pausedAt === undefined || !followed.inbox.hasRoom) return;
    const cursor = followed.pausedAt;
    followed.pausedAt = undefined;
    this.#do(this.#session.subscribe(topic, cursor, at(), followed.takesSnapshots));
  }

  async #mint(topics: readonly string[]): Promise<void> {
    try {
      const grant = checkedGrant(await this.#inTime(this.#options.tokens(topics)), this.#options.khalaUrl);
      this.#url = this.#options.khalaUrl ?? grant.khalaUrl;
      const refused = new Map(Object.entries(grant.refused ?? {}));
      const { token: text, expiresInMs } = grant;
      this.#do(this.#session.token({ text, topics: new Set(grant.topics), expiresInMs, refused }, at()));
    } catch (error) {
      const refusal = error instanceof Refusal ? error : new Refusal("internal", `no token: ${textOf(error)}`);
      // If grants were among what was asked for, the session asks for their topics by name.
      if (refusal.field === "topics" && isFinal(refusal.reason) && topics.every((name) => this.#followed.has(name))) {
        this.#failAll(topics, refusal);
        return;
      }
      if (this.#link === null) this.#tell(false, refusal.message);
      this.#do(this.#session.noToken(refusal.reason, refusal.message, at(), refusal.retryAfterMs));
    }
  }

  // A request that never settles would be the last one. At most one is under way.
  async #inTime<T>(answer: Promise<T>): Promise<T> {
    const timeoutMs = Math.min(this.#limits.tokenTimeoutMs, MAX_TIMER_MS);
    const late = new Promise<never>((_, reject) => {
      const text = `no token came within ${timeoutMs} ms; let what gives tokens end its requests`;
      this.#tokenTimer = setTimeout(() => reject(new Refusal("deadline_exceeded", text)), timeoutMs);
    });
    try {
      return await Promise.race([answer, late]);
    } finally {
      clearTimeout(this.#tokenTimer);
    }
  }

  // Without a topic that it may grant, control gives no token, and says so in this way. Other topics may follow.
  #failAll(topics: readonly string[], refusal: Refusal): void {
    for (const topic of topics) {
      this.#followed.get(topic)?.inbox.end(refusal);
      this.#do(this.#session.unsubscribe(topic));
    }
    this.#do(this.#session.noToken("unavailable", refusal.message, at()));
  }

  // ----------------------------------------------------------------------------------------------------- connections

  #connect({ generation, delayMs }: Connect): void {
    let link: Link | undefined;
    const timer = setTimeout(() => (link = this.#open(generation)), Math.min(delayMs, MAX_TIMER_MS));
    const cancel = (): void => {
      clearTimeout(timer);
      link?.drop();
    };
    this.#link = { generation, cancel, send: (frame) => link?.send(frame) };
  }

  #open(generation: number): Link | undefined {
    this.#said = "";
    try {
      return new Link(this.#webSocket, this.#url, {
        opened: () => {
          this.#tell(true, "");
          this.#do(this.#session.connected(generation, at()));
        },
        received: (frame) => {
          if (frame.kind === "error" && frame.topic === "") this.#said = `${frame.reason}: ${frame.message}`;
          this.#do(this.#session.frame(generation, frame, at()));
          // A page in the background may get its timers only once a minute, but it gets each frame as it comes.
          if ((this.#session.wakeAtMs ?? Infinity) <= at().nowMs) this.#do(this.#session.timer(at()));
        },
        ended: (reason, message) => this.#ended(generation, reason, message),
      });
    } catch {
      const text = "the gateway's address is no WebSocket address; it is for example wss://host/khala/v1/ws";
      this.#ended(generation, "invalid_setting", text);
      return undefined;
    }
  }

  #ended(generation: number, reason: string, message: string): void {
    if (this.#link?.generation !== generation) return;
    this.#link = null;
    this.#tell(false, this.#said || message);
    this.#do(this.#session.disconnected(generation, at(), reason, this.#said || message));
  }

  #disconnect(generation: number): void {
    if (this.#link?.generation !== generation) return;
    this.#link.cancel();
    this.#link = null;
    this.#tell(false, "the client has left it");
  }

  #tell(open: boolean, message: string): void {
    try {
      this.#options.onConnection?.(open, message);
    } catch (error) {
      // Surface it as an uncaught error and continue. Thrown here, it would leave the session between two states.
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  #endAll(error: Refusal | null): void {
    clearTimeout(this.#tokenTimer); // it would keep a program of Node alive
    for (const { inbox } of this.#followed.values()) inbox.end(error);
  }
}

// A clock that never goes back. (In a page that sleeps it may stand still; the gateway's silence then shows that.)
function at(): Instant {
  return { nowMs: Math.floor(performance.now()), jitter: Math.random() };
}

// What a program throws may be anything, also what has no text.
function textOf(error: unknown): string {
  try {
    return String(error);
  } catch {
    return `a value of type ${typeof error}`;
  }
}

function sizeOf(update: Update): number {
  return "payload" in update ? update.payload.length : 0;
}
