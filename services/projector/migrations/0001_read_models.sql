-- Read models, how far they have come, and the journals of the topics made from them. All of it is derived: what is
-- lost here is made again from runtime's log.

-- Lineage of every journal topic: a cursor of another epoch is stale. Made once, when the journal is.
CREATE TABLE projection.journal_epoch (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    text NOT NULL CHECK (epoch <> '')
);
INSERT INTO projection.journal_epoch (epoch) VALUES ('journal_' || replace(gen_random_uuid()::text, '-', ''));

-- How far a projection has come in each partition of the log. Moved by compare-and-set only, in the transaction that
-- stores what the entries up to `position` led to.
CREATE TABLE projection.checkpoints (
    projection text        NOT NULL,
    version    integer     NOT NULL CHECK (version > 0),
    partition  integer     NOT NULL CHECK (partition >= 0),
    log_epoch  text        NOT NULL CHECK (log_epoch <> ''),
    position   bigint      NOT NULL DEFAULT 0 CHECK (position >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, version, partition)
);

-- One document for each run: a serialized openagents.projection.v1.RunSummary. The columns beside it are what lists
-- need, and are read from it.
CREATE TABLE projection.run_summaries (
    version      integer     NOT NULL CHECK (version > 0),
    run_id       text        COLLATE "C" NOT NULL,
    user_id      text        NOT NULL,
    org_id       text        NOT NULL,
    status       text        NOT NULL,
    latest_seq   bigint      NOT NULL CHECK (latest_seq > 0),
    document     bytea       NOT NULL,
    summary_hash bytea       NOT NULL CHECK (summary_hash = sha256(document)),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (version, run_id)
);
-- Run ids are ULIDs, so their order is the order of creation.
CREATE INDEX run_summaries_by_user ON projection.run_summaries (version, user_id, org_id, run_id DESC);
CREATE INDEX run_summaries_by_org ON projection.run_summaries (version, org_id, run_id DESC);

-- Where each topic stands. A topic without a row has head 0. The row's lock is what gives seqs out one by one.
CREATE TABLE projection.topic_heads (
    topic text   PRIMARY KEY,
    head  bigint NOT NULL CHECK (head > 0),
    floor bigint NOT NULL DEFAULT 0 CHECK (floor BETWEEN 0 AND head)
);

-- The topics themselves: seq 1, 2, 3, … without a hole, given in the transaction that stores the row.
CREATE TABLE projection.journal (
    topic       text        NOT NULL,
    seq         bigint      NOT NULL CHECK (seq > 0),
    run_id      text        NOT NULL,
    payload     bytea       NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, seq)
);

-- The same run at the same seq, computed twice with different results. For people: nothing here is mended by itself.
CREATE TABLE projection.drifts (
    drift_id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    projection        text        NOT NULL,
    version           integer     NOT NULL,
    run_id            text        NOT NULL,
    seq               bigint      NOT NULL,
    stored_hash       bytea       NOT NULL,
    computed_hash     bytea       NOT NULL,
    computed_document bytea       NOT NULL,
    found_at          timestamptz NOT NULL DEFAULT now(),
    UNIQUE (projection, version, run_id, seq, stored_hash, computed_hash)
);

-- What is written once is not changed: by grant, not by good will.
REVOKE UPDATE ON projection.journal FROM projector_app;
REVOKE INSERT, UPDATE, DELETE ON projection.journal_epoch FROM projector_app;
REVOKE UPDATE, DELETE ON projection.drifts FROM projector_app;
REVOKE DELETE ON projection.topic_heads, projection.checkpoints FROM projector_app;
