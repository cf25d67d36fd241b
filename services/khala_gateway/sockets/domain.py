"""How the closing of many connections is spread over time."""


def drain_delays_ms(count: int, window_ms: int) -> list[int]:
    """When each of `count` connections is closed, evenly over a window of `window_ms`, the first one at once."""
    return [index * window_ms // count for index in range(count)]
