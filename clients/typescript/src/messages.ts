/**
 * The messages in the payloads of topics: `RunEvent` in `run:…:events`, `RunSummary` in `user:…:runs` and
 * `org:…:runs`, `Worker` in `org:…:workers`, `WorkerEvent` in `worker:…:lifecycle`, and `Notification` in
 * `user:…:notifications`. The snapshot of a run is a `RunSnapshot`, and that of a list is a `DocumentSet`, whose
 * documents are the list's messages. Decode them with `fromBinary` of `@bufbuild/protobuf`.
 */

export * from "./gen/openagents/projection/v1/notification_pb.js";
export * from "./gen/openagents/projection/v1/run_summary_pb.js";
export * from "./gen/openagents/runtime/v1/event_pb.js";
export * from "./gen/openagents/runtime/v1/run_pb.js";
export * from "./gen/openagents/runtime/v1/worker_pb.js";
export { DocumentSetSchema, type DocumentSet } from "./gen/openagents/sync/v1/frame_pb.js";
