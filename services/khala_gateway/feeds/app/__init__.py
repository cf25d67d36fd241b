"""What happens to feeds: the hub, one topic, repairs, and reads of history for subscribers."""
