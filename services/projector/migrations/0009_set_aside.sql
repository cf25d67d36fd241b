-- Entries of runs that a defect keeps from being applied. They wait here in the order of the run's log, in the
-- transaction that moved the checkpoint past them; a run is set aside as long as there are any.
CREATE TABLE projection.set_aside (
    version      integer     NOT NULL CHECK (version > 0),
    run_id       text        COLLATE "C" NOT NULL,
    seq          bigint      NOT NULL CHECK (seq > 0),
    partition    integer     NOT NULL CHECK (partition >= 0),
    entry        bytea       NOT NULL,
    set_aside_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (version, run_id, seq)
);
REVOKE UPDATE ON projection.set_aside FROM projector_app;
