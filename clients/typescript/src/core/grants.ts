/**
 * Grants of owners: what a sync token opens besides topics by name. Such a grant is written as a topic, with the
 * owner's id in place of the run's or the worker's.
 */

import { Refusal } from "../refusal.js";

interface TopicForm {
  readonly topic: RegExp;
  readonly grant: RegExp;
}

const ULID = "[0-7][0-9A-HJKMNP-TV-Z]{25}";
const FORMS: readonly TopicForm[] = [
  form("run:", "run", ["usr", "sva", "org"], ":events"),
  form("worker:", "wrk", ["org"], ":lifecycle"),
];

function form(prefix: string, id: string, owners: readonly string[], suffix: string): TopicForm {
  return {
    topic: new RegExp(`^${prefix}${id}_${ULID}${suffix}$`),
    grant: new RegExp(`^${prefix}(?:${owners.join("|")})_${ULID}${suffix}$`),
  };
}

/**
 * Return the grant for all runs of a person (`usr_…`), a service account (`sva_…`) or an org (`org_…`), present and
 * future. Throws Refusal `invalid_topic` for another id.
 */
export function runsOf(ownerId: string): string {
  const grant = `run:${ownerId}:events`;
  if (FORMS[0]!.grant.test(grant)) return grant;
  const text = "there are no runs of this id; give the id of a person, a service account or an org";
  throw new Refusal("invalid_topic", text, { field: "ownerId" });
}

/** Whether one of `grants` may open the topic `name`. Whether it does depends on the topic's owner. */
export function opens(grants: ReadonlySet<string>, name: string): boolean {
  if (grants.size === 0) return false;
  const known = FORMS.find((each) => each.topic.test(name));
  return known !== undefined && [...grants].some((grant) => known.grant.test(grant));
}
