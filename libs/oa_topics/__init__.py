"""How a topic is served: where it stands, its history, and live frames for those who watch it.

- `store`: what a service has to say of its topics (`TopicStore`). All that is particular to a source is behind it.
- `history`: DescribeTopic and ReplayTopic: whether a cursor can be continued, and a page without a hole.
- `watcher`: what one Watch stream carries. Pure.
- `hub`: what is committed, to all watchers.
- `publisher`: frames published once for all gateways that take them from there.
- `delivery_checks`: whether what a source commits arrives.
- `wire`: live frames as messages.
- `servicer`: TopicService on gRPC, for every source.
"""
