"""Work that is done now and then, beside what callers ask for."""
