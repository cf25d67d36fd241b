-- When the person of a session signed in again on its device, and went on with it; NULL for never.
ALTER TABLE control.sessions ADD COLUMN signed_in_again_at timestamptz;
