"""Container images: their contents, their base, and the build."""
