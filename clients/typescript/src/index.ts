/** Follows topics of OpenAgents Runtime over Khala. The README has an example. */

export { KhalaClient, type ClientOptions, type TopicOptions, type Update } from "./client.js";
export { controlTokens, type ControlOptions, type Surface, type SyncGrant, type TokenSource } from "./control.js";
export type { ClientAction } from "./core/catalogue.js";
export { SESSION_LIMITS, type SessionLimits } from "./core/commands.js";
export type { Cursor } from "./core/frames.js";
export { runsOf } from "./core/grants.js";
export type { Counts } from "./core/topics.js";
export {
  MemoryCursors,
  readCursor,
  StorageCursors,
  writeCursor,
  type CursorStore,
  type TextStorage,
} from "./cursors.js";
export { INBOX_LIMITS, type InboxLimits } from "./inbox.js";
export { WAIT_LIMITS, type Limits, type WaitLimits } from "./limits.js";
export { Refusal } from "./refusal.js";
export type { WebSocketClass, WebSocketLike } from "./sockets.js";
