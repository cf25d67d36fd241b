-- Places as control has told of them: who may start runs in an org. Somebody in one org, somebody in all of them
-- (`org_id` empty), or everybody in one (`subject` empty). Control forgets a change after a while; what it means for
-- schedules and runs lasts. `position` and `changed_at` are those of control's newest change.
CREATE TABLE runtime.places (
    subject    text        COLLATE "C" NOT NULL,
    org_id     text        COLLATE "C" NOT NULL,
    is_lost    boolean     NOT NULL,
    position   bigint      NOT NULL,
    changed_at timestamptz NOT NULL,
    heard_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (subject, org_id),
    CHECK (subject <> '' OR org_id <> '')
);
CREATE INDEX places_of_closed_orgs ON runtime.places (org_id) WHERE subject = '' AND is_lost;

-- A schedule that was paused because its org was deleted: it goes on by itself when the org is restored.
ALTER TABLE runtime.schedules ADD COLUMN closed_with_org boolean NOT NULL DEFAULT false;
CREATE INDEX schedules_closed_with_org ON runtime.schedules (org_id) WHERE closed_with_org AND status = 'paused';

REVOKE ALL ON runtime.places FROM runtime_app;
GRANT SELECT, INSERT, UPDATE ON runtime.places TO runtime_app;
