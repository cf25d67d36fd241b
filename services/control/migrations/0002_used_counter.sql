-- The newest counter whose access token was let in. While it is behind `counter`, the refresh token before the current
-- one is answered again (ADR 0013). -1: none yet.
ALTER TABLE control.sessions ADD COLUMN used_counter bigint NOT NULL DEFAULT -1;
-- Nobody wrote down what was used so far: taken as used, so that no old token of before comes to life.
UPDATE control.sessions SET used_counter = counter;
