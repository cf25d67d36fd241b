"""The projector's tables. Nothing else in the service speaks SQL."""
