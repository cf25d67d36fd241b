-- Which side answers which web requests, canaries, and maintenance. Operators change them; all replicas follow.

-- One row, which every change locks and counts: so changes have one order, and a replica sees by one number whether it has
-- them all. maintenance_since is null while the site is open; maintenance_number is that of the present maintenance, or of
-- the next one.
CREATE TABLE control.route_head (
    only_one             boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    change               bigint NOT NULL,
    version              bigint NOT NULL,
    maintenance_number   bigint NOT NULL,
    maintenance_since    timestamptz,
    maintenance_notice   text NOT NULL,
    maintenance_retry_ms integer NOT NULL
);

-- The groups of each version. A rollback goes to base: the version before the last change by an operator; -1 for none.
CREATE TABLE control.route_versions (
    version bigint PRIMARY KEY,
    base    bigint NOT NULL,
    groups  jsonb NOT NULL,
    made_at timestamptz NOT NULL
);
INSERT INTO control.route_versions (version, base, groups, made_at) VALUES (0, -1, '[]', now());
INSERT INTO control.route_head (change, version, maintenance_number, maintenance_notice, maintenance_retry_ms)
VALUES (0, 0, 1, '', 0);

-- Groups on their way to the shell, and those that were. step is a number from 0 on; ended_at is null while it runs.
CREATE TABLE control.canaries (
    canary_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_name   text NOT NULL,
    step         integer NOT NULL,
    step_at      timestamptz NOT NULL,
    hold_ms      integer NOT NULL,
    min_requests integer NOT NULL,
    ended_at     timestamptz,
    outcome      text NOT NULL DEFAULT '',
    reason       text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX canaries_one_of_a_group ON control.canaries (group_name) WHERE ended_at IS NULL;
CREATE INDEX canaries_by_group ON control.canaries (group_name, canary_id DESC);

-- What the replicas together have measured in a step. times counts the answers by how long they took.
CREATE TABLE control.canary_samples (
    canary_id bigint NOT NULL REFERENCES control.canaries ON DELETE CASCADE,
    step      integer NOT NULL,
    side      text NOT NULL,
    requests  bigint NOT NULL,
    errors    bigint NOT NULL,
    times     bigint[] NOT NULL,
    PRIMARY KEY (canary_id, step, side)
);
