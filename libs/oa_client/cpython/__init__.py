"""What the core needs of the world, for CPython: httpx, websockets, files and SQLite."""
