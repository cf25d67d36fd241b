"""The logic of feeds: the hub, one topic, repairs, and reads of history for subscribers."""
