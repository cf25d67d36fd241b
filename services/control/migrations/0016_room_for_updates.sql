-- A session changes with every refresh. With room beside it, no index has to be told.
ALTER TABLE control.sessions SET (fillfactor = 85);
