"""Container images: what goes into each, the base that they stand on, and the build."""
