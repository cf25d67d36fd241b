-- What a worker says of its agents: name -> {"input_schema", "output_schema", "description"}, each a text, left out when
-- it says nothing. Workers that attach to a replica of an earlier version say nothing.
ALTER TABLE runtime.workers ADD COLUMN agents jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(agents) = 'object');
