-- What becomes of each worker, as a topic: one event for each stream that it attaches with, and for each status that it
-- comes to. Written with the change itself, whoever makes it.
CREATE TABLE runtime.worker_topics (
    worker_id text   COLLATE "C" PRIMARY KEY,
    head      bigint NOT NULL CHECK (head > 0),
    floor     bigint NOT NULL DEFAULT 0 CHECK (floor BETWEEN 0 AND head)
) WITH (fillfactor = 70);

CREATE TABLE runtime.worker_events (
    worker_id           text        COLLATE "C" NOT NULL,
    seq                 bigint      NOT NULL CHECK (seq > 0),
    status              text        NOT NULL,
    name                text        NOT NULL,
    adapters            text[]      NOT NULL,
    max_concurrent_runs integer     NOT NULL,
    recorded_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (worker_id, seq)
);

-- The worker's row is locked by the statement that changes it, so its seqs have no holes. The newest 1000 events of a
-- worker are kept; the floor goes up with those that are not. Replicas are told that there is something to read.
CREATE FUNCTION runtime.note_workers() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kept constant bigint := 1000;
    ids text[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        ids := ARRAY(SELECT n.worker_id FROM changed n);
    ELSE
        ids := ARRAY(SELECT n.worker_id FROM changed n JOIN before o USING (worker_id)
                     WHERE (n.status, n.attachment) IS DISTINCT FROM (o.status, o.attachment));
    END IF;
    IF cardinality(ids) = 0 THEN
        RETURN NULL;
    END IF;
    WITH raised AS (
        INSERT INTO runtime.worker_topics AS t (worker_id, head) SELECT id, 1 FROM unnest(ids) AS id
        ON CONFLICT (worker_id) DO UPDATE SET head = t.head + 1, floor = greatest(t.floor, t.head + 1 - kept)
        RETURNING worker_id, head
    )
    INSERT INTO runtime.worker_events (worker_id, seq, status, name, adapters, max_concurrent_runs)
    SELECT n.worker_id, r.head, n.status, n.name, n.adapters, n.max_concurrent_runs
    FROM raised r JOIN changed n USING (worker_id);
    DELETE FROM runtime.worker_events e USING runtime.worker_topics t
    WHERE t.worker_id = ANY (ids) AND e.worker_id = t.worker_id AND e.seq <= t.floor;
    PERFORM pg_notify('runtime_log', 'workers');
    RETURN NULL;
END
$$;
CREATE TRIGGER workers_added AFTER INSERT ON runtime.workers
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION runtime.note_workers();
CREATE TRIGGER workers_changed AFTER UPDATE ON runtime.workers
    REFERENCING OLD TABLE AS before NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION runtime.note_workers();

REVOKE ALL ON runtime.worker_topics, runtime.worker_events FROM runtime_app;
GRANT SELECT, INSERT, UPDATE ON runtime.worker_topics TO runtime_app;
GRANT SELECT, INSERT, DELETE ON runtime.worker_events TO runtime_app;
