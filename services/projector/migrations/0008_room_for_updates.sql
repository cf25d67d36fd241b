-- Rows that change again and again have room beside them: a change that no index sees then stays on their page.
ALTER TABLE projection.run_summaries SET (fillfactor = 85);
ALTER TABLE projection.topic_heads SET (fillfactor = 70);
