"""The tokens that the Khala gateway admits."""
