"""Workers: how they attach over streams, get runs, and are watched."""
