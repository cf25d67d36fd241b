-- Places as control has told of them: who may start runs in an org. Somebody in one org, somebody in all of them
-- (`org_id` empty), or everybody in one (`subject` empty). Control forgets a change after a while; what it means for a
-- person's topics lasts. `position` and `changed_at` are those of control's newest change.
CREATE TABLE projection.places (
    subject    text        COLLATE "C" NOT NULL,
    org_id     text        COLLATE "C" NOT NULL,
    is_lost    boolean     NOT NULL,
    position   bigint      NOT NULL,
    changed_at timestamptz NOT NULL,
    heard_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (subject, org_id),
    CHECK (subject <> '' OR org_id <> '')
);
-- A function in FROM: it becomes part of the query that asks, where one in an expression is called for each row.
CREATE FUNCTION projection.lost_places(of_subject text, of_org_id text) RETURNS SETOF projection.places
    LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT * FROM projection.places
    WHERE is_lost AND (subject, org_id) IN ((of_subject, of_org_id), (of_subject, ''), ('', of_org_id));
END;
COMMENT ON FUNCTION projection.lost_places IS
    'Why a place was lost, if it was: by itself, with all of somebody''s, or with the org.';
REVOKE ALL ON projection.places FROM projector_app;
GRANT SELECT, INSERT, UPDATE ON projection.places TO projector_app;
