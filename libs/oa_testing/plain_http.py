"""HTTP without TLS, for tests."""

from __future__ import annotations

import ssl

import httpx


def plain_http(base_url: str = "", timeout_s: float = 60.0) -> httpx.AsyncClient:
    """A client for http:// alone."""
    return httpx.AsyncClient(base_url=base_url, timeout=timeout_s, trust_env=False, verify=trusting_nobody())


def trusting_nobody() -> ssl.SSLContext:
    """What a client for http:// alone needs of TLS. Reading all authorities takes longer than most tests."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
