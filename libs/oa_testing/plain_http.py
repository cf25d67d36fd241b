"""HTTP without TLS, for tests."""

from __future__ import annotations

import ssl

import httpx


def plain_http(base_url: str = "", timeout_s: float = 60.0) -> httpx.AsyncClient:
    """A client for http:// alone. It trusts no authority, because reading all of them takes longer than most tests."""
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(base_url=base_url, timeout=timeout_s, trust_env=False, verify=nobody)
