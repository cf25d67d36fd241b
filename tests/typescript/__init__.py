"""The TypeScript client: it is the Python one's equal, against the same vectors and the same gateway."""
