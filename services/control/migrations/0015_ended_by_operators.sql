-- What operators ended: a person's own list has the ends of the person's sessions and keys. Operators do little, so this
-- index stays small.
CREATE INDEX audit_events_by_operators ON control.audit_events (target, audit_id) WHERE actor = 'operator';
