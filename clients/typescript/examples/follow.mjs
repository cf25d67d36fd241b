// Prints what a run writes, from its start: CONTROL=… TOKEN=… DEVICE=… RUN=… node examples/follow.mjs
import { fromBinary } from "@bufbuild/protobuf";
import { KhalaClient, controlTokens } from "@openagents/khala";
import { RunEventSchema } from "@openagents/khala/messages";
import { WebSocket } from "ws"; // Node 22 and newer has its own

const { CONTROL, TOKEN, DEVICE, RUN } = process.env;
const tokens = controlTokens({ url: CONTROL, accessToken: TOKEN, surface: "sdk" });
const client = new KhalaClient({ tokens, deviceId: DEVICE, webSocket: WebSocket });
for await (const update of client.topic(`run:${RUN}:events`)) {
  if (update.kind !== "event") continue;
  const kind = fromBinary(RunEventSchema, update.payload).body?.kind;
  if (kind?.case === "textDelta") process.stdout.write(kind.value.data);
  if (kind?.case === "runFinished") client.close();
}
