"""`oa admin …`: what operators of an installation do."""
