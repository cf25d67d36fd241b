"""Container images: what each may hold, and each of them started read-only beside a real PostgreSQL."""
