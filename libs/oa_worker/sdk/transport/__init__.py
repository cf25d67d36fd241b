"""The way to the authority: proxies, trust and tokens, the stream, and the calls beside it."""
