/**
 * The states of a session and the steps between them. A step that is not in the table does not happen.
 *
 *       START            DIAL              CONNECTED             WELCOMED
 * idle ───────▶ noToken ──────▶ connecting ─────────▶ greeting ─────────▶ open
 *                ▲    ▲             │                    │                 │
 *         RESUME │    └─────────────┴───────── LOST ─────┴─────────────────┘
 *            suspended
 *
 * SUSPEND leads from noToken, connecting, greeting and open to suspended.
 * STOP leads from every state to stopped, and nothing leads out of it.
 */

export type State = "idle" | "noToken" | "connecting" | "greeting" | "open" | "suspended" | "stopped";
export type Step = "start" | "dial" | "connected" | "welcomed" | "lost" | "suspend" | "resume" | "stop";

export const NEXT: Readonly<Record<State, Readonly<Partial<Record<Step, State>>>>> = {
  idle: { start: "noToken", stop: "stopped" },
  noToken: { dial: "connecting", suspend: "suspended", stop: "stopped" },
  connecting: { connected: "greeting", lost: "noToken", suspend: "suspended", stop: "stopped" },
  greeting: { welcomed: "open", lost: "noToken", suspend: "suspended", stop: "stopped" },
  open: { lost: "noToken", suspend: "suspended", stop: "stopped" },
  suspended: { resume: "noToken", stop: "stopped" },
  stopped: { stop: "stopped" },
};

/** Whether `step` can happen in `state`. */
export function allows(state: State, step: Step): boolean {
  return NEXT[state][step] !== undefined;
}

/** Whether a connection is wanted in `state`. */
export function isRunning(state: State): boolean {
  return allows(state, "suspend");
}

/** Return the state after `step`. Throws if it can't happen: a defect of the session, which drops late reports. */
export function after(state: State, step: Step): State {
  const next = NEXT[state][step];
  if (next === undefined) throw new Error(`${step} can't happen in ${state}`);
  return next;
}
