-- Indexes of the runs that wait, that are held, and so on are small parts of a table that grows for years. A run that has
-- left them is read again by everybody who looks, until the table is vacuumed: after every 50th part of it, not every
-- fifth.
ALTER TABLE runtime.runs SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
