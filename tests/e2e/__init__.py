"""The four real processes, a real worker and a real client, over real sockets."""
