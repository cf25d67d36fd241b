/** The catalogue of reasons, read from the contract's own options: what a client does about each reason. */

import { getOption } from "@bufbuild/protobuf";

import { ClientAction as Action, ReasonSchema, spec } from "../gen/openagents/common/v1/errors_pb.js";

/** What a client does about a refusal; `docs/errors.md` says more. */
export type ClientAction =
  "fix_request" | "retry" | "reauthenticate" | "reread" | "resync" | "reconnect" | "give_up" | "upgrade" | "stop_work";

const ACTIONS: Readonly<Record<number, ClientAction>> = {
  [Action.FIX_REQUEST]: "fix_request",
  [Action.RETRY]: "retry",
  [Action.REAUTHENTICATE]: "reauthenticate",
  [Action.REREAD]: "reread",
  [Action.RESYNC]: "resync",
  [Action.RECONNECT]: "reconnect",
  [Action.GIVE_UP]: "give_up",
  [Action.UPGRADE]: "upgrade",
  [Action.STOP_WORK]: "stop_work",
};

const CATALOGUE: ReadonlyMap<string, ClientAction> = new Map(
  ReasonSchema.values.flatMap((value) => {
    const action = ACTIONS[getOption(value, spec).action];
    return action === undefined ? [] : [[value.localName.toLowerCase(), action] as const];
  }),
);

/** Whether `reason` is in the catalogue that this package was built with. */
export function isReason(reason: string): boolean {
  return CATALOGUE.has(reason);
}

/** Return the catalogue's action; a reason from a newer server is worth another try. */
export function actionOf(reason: string): ClientAction {
  return CATALOGUE.get(reason) ?? "retry";
}

const FINAL: ReadonlySet<ClientAction> = new Set(["fix_request", "give_up", "upgrade", "stop_work"]);

/** Whether retrying can't help. */
export function isFinal(reason: string): boolean {
  return FINAL.has(actionOf(reason));
}

/** Return the name of the enum's value `number`, for example "stale_epoch"; "internal" for a newer server's value. */
export function reasonOf(number: number): string {
  return ReasonSchema.values.find((value) => value.number === number)?.localName.toLowerCase() ?? "internal";
}
