-- Schedules: runs that start by the clock (docs/schedules.md). A schedule's row is locked by whoever looks after a time
-- of it, from before the run is created until after `next_time` has moved on; the run's idempotency key is made of the
-- schedule's id and the time. So a time has one run, whoever dies in between.
CREATE TABLE runtime.schedules (
    schedule_id        text        COLLATE "C" PRIMARY KEY,
    org_id             text        NOT NULL,
    user_id            text        NOT NULL,
    name               text        COLLATE "C" NOT NULL CHECK (name <> ''),
    create_key         text        NOT NULL,
    create_fingerprint bytea       NOT NULL,
    cron               text,
    time_zone          text,
    every_ms           bigint      CHECK (every_ms > 0),
    anchor_time        timestamptz,
    overlap            text        NOT NULL CHECK (overlap IN ('skip', 'allow', 'cancel_previous')),
    catch_up_ms        bigint      NOT NULL CHECK (catch_up_ms > 0),
    spec               bytea       NOT NULL,
    create_time        timestamptz NOT NULL,
    next_time          timestamptz NOT NULL,
    status             text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused', 'deleted')),
    delete_time        timestamptz,
    pause_reason       text        NOT NULL DEFAULT '',
    last_run_id        text        COLLATE "C" NOT NULL DEFAULT '',
    started            bigint      NOT NULL DEFAULT 0 CHECK (started >= 0),
    skipped            bigint      NOT NULL DEFAULT 0 CHECK (skipped >= 0),
    refused            bigint      NOT NULL DEFAULT 0 CHECK (refused >= 0),
    refused_in_row     integer     NOT NULL DEFAULT 0 CHECK (refused_in_row >= 0),
    CHECK ((cron IS NULL) = (time_zone IS NULL)),
    CHECK ((every_ms IS NULL) = (anchor_time IS NULL)),
    CHECK ((cron IS NULL) <> (every_ms IS NULL)),
    CHECK ((status = 'deleted') = (delete_time IS NOT NULL))
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX schedules_create_key ON runtime.schedules (org_id, user_id, create_key);
CREATE UNIQUE INDEX schedules_name ON runtime.schedules (org_id, name) WHERE status <> 'deleted';
CREATE INDEX schedules_of_org ON runtime.schedules (org_id, schedule_id) WHERE status <> 'deleted';
CREATE INDEX schedules_due ON runtime.schedules (next_time) WHERE status = 'active';
CREATE INDEX schedules_deleted ON runtime.schedules (delete_time) WHERE status = 'deleted';

-- What became of the newest times of each schedule. `times` were skipped together, the newest of which is
-- `nominal_time`. A run stands here once.
CREATE TABLE runtime.schedule_times (
    schedule_id  text        COLLATE "C" NOT NULL REFERENCES runtime.schedules ON DELETE CASCADE,
    number       bigint      GENERATED ALWAYS AS IDENTITY,
    nominal_time timestamptz NOT NULL,
    record_time  timestamptz NOT NULL DEFAULT clock_timestamp(),
    cause        text        NOT NULL CHECK (cause IN ('clock', 'trigger', 'backfill')),
    outcome      text        NOT NULL CHECK (outcome IN ('started', 'skipped', 'refused')),
    times        integer     NOT NULL CHECK (times > 0),
    reason       text        NOT NULL,
    message      text        NOT NULL,
    run_id       text        COLLATE "C" NOT NULL,
    PRIMARY KEY (schedule_id, number),
    CHECK ((outcome = 'started') = (run_id <> ''))
);
CREATE UNIQUE INDEX schedule_times_run ON runtime.schedule_times (schedule_id, run_id) WHERE run_id <> '';

REVOKE ALL ON runtime.schedules, runtime.schedule_times FROM runtime_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON runtime.schedules TO runtime_app;
GRANT SELECT, INSERT, DELETE ON runtime.schedule_times TO runtime_app;
