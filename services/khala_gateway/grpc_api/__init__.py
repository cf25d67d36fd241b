"""The gateway as a client of TopicService: where topics come from."""
