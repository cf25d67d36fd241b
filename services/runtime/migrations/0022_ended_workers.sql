-- Workers that ended long ago are removed, with their topics.
GRANT DELETE ON runtime.workers, runtime.worker_topics TO runtime_app;
