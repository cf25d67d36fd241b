"""The part of WorkOS's API that signing in asks, on loopback: who opens the page is one user at once."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from flask import Flask, Response, request
from werkzeug.serving import make_server

from oa_testing.waiting import PATIENCE_S

CLIENT_ID = "client_01TEST"
API_KEY = "the API key of the installation at WorkOS"
_MOMENT = "2026-01-01T00:00:00.000Z"
ADA = {
    "object": "user",
    "id": "user_01ADA",
    "first_name": "Ada",
    "last_name": None,
    "profile_picture_url": None,
    "email": "Ada@Example.org",
    "email_verified": True,
    "external_id": None,
    "last_sign_in_at": None,
    "created_at": _MOMENT,
    "updated_at": _MOMENT,
}


@dataclass
class WorkOsApi:
    """`user` signs in. `answer` takes the place of the answer to a code."""

    url: str = ""
    user: dict[str, Any] = field(default_factory=lambda: dict(ADA))
    more: dict[str, Any] = field(default_factory=dict)
    answer: tuple[int, str] | None = None
    pages: list[dict[str, str]] = field(default_factory=list)
    codes: dict[str, str] = field(default_factory=dict)
    """Code -> PKCE challenge."""

    def page(self, url: str) -> dict[str, str]:
        """What a browser brings to the redirect URL after it opened the page."""
        parts = urlsplit(url)
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{self.url}/user_management/authorize"
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert (asked["client_id"], asked["response_type"], asked["code_challenge_method"]) == (
            CLIENT_ID,
            "code",
            "S256",
        )
        self.pages.append(asked)
        code = secrets.token_urlsafe()
        self.codes[code] = asked["code_challenge"]
        return {"code": code, "state": asked["state"], "at": f"{asked['redirect_uri']}?{urlencode({'code': code})}"}

    def exchange(self, body: dict[str, Any]) -> tuple[int, str]:
        """The answer to a code, as WorkOS documents it."""
        if (body.get("client_id"), body.get("client_secret")) != (CLIENT_ID, API_KEY):
            return 401, json.dumps({"error": "invalid_client", "error_description": "no such client"})
        made = base64.urlsafe_b64encode(hashlib.sha256(body.get("code_verifier", "").encode()).digest())
        challenge = self.codes.pop(body.get("code", ""), "")
        if body.get("grant_type") != "authorization_code" or challenge != made.decode().rstrip("="):
            error = "The code 'hunter2' has expired or is invalid."
            return 400, json.dumps({"error": "invalid_grant", "error_description": error})
        return 200, json.dumps({"user": self.user, "access_token": "a", "refresh_token": "r", **self.more})


@contextmanager
def running_workos() -> Iterator[WorkOsApi]:
    """The API."""
    api = WorkOsApi()
    app = Flask(__name__)

    @app.post("/user_management/authenticate")
    def _authenticate() -> Response:
        status, text = api.answer or api.exchange(request.get_json())
        return Response(text, status, content_type="application/json")

    server = make_server("127.0.0.1", 0, app, threaded=True)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join(PATIENCE_S)
        server.server_close()
