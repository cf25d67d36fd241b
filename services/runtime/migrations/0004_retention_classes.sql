-- The class of retention of each run (docs/protocol/archive.md), as its run.created says it. How long a class keeps its
-- runs is a setting; runs from before there were classes have the one that a run has when it names none.
ALTER TABLE runtime.runs ADD COLUMN retention_class text COLLATE "C" NOT NULL DEFAULT 'default'
    CHECK (retention_class <> '');

-- What may be archived, by class, the longest finished first: what is due is read from the front of each class, and
-- the classes that there are by going from the front of one to that of the next.
DROP INDEX runtime.runs_to_archive;
CREATE INDEX runs_to_archive ON runtime.runs (retention_class, finish_time)
    WHERE finish_time IS NOT NULL AND NOT archived;
