"""Which run is meant, and what a person sees of one that is followed."""
