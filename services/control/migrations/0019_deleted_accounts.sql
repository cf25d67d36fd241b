-- An account that was deleted leaves its id, and when it was made and deleted: runs, receipts and audit events name the
-- id (ADR 0062). Its address can be used for another account.
ALTER TABLE control.users ALTER COLUMN email DROP NOT NULL;
ALTER TABLE control.users ADD COLUMN deleted_at timestamptz;
ALTER TABLE control.users ADD CONSTRAINT users_address_until_deletion
    CHECK ((email IS NULL) = (deleted_at IS NOT NULL));

-- A person's own org goes with the account, and its name, which is about the person, goes at once.
ALTER TABLE control.orgs DROP CONSTRAINT orgs_personal_stays;
ALTER TABLE control.orgs ADD CONSTRAINT orgs_personal_goes_without_its_name
    CHECK (personal_of IS NULL OR delete_at IS NULL OR name = '');
