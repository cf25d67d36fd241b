"""Which run is meant, and how a followed run is shown to a person."""
