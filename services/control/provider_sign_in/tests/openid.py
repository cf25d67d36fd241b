"""An OpenID provider on loopback: pyop, which is not ours, behind a small HTTP server.

What it is made of takes a second to import. All workers of the tests import this module, and few of them run it.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from oa_testing.plain_http import trusting_nobody
from oa_testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from flask import Flask, Response
    from jwkest.jwk import RSAKey
    from pyop.provider import Provider

CLIENT_ID = "openagents"
SECRET = "the secret of the installation at the provider"
REDIRECT = "http://127.0.0.1:4711/callback"
_RSA_BITS = 2048
Claims = dict[str, Any]


def new_key(kid: str) -> RSAKey:
    """A key that signs."""
    from Cryptodome.PublicKey import RSA
    from jwkest.jwk import RSAKey

    made = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    pem = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return RSAKey(key=RSA.import_key(pem), kid=kid, alg="RS256", use="sig")


def signed(claims: Mapping[str, Any], key: Any, alg: str = "RS256") -> str:
    """A token with these claims."""
    from jwkest.jws import JWS

    token: str = JWS(json.dumps(claims), alg=alg).sign_compact([key] if key else [])
    return token


def claims_of(id_token: str) -> Claims:
    """What a token says, whoever signed it."""
    part = id_token.split(".")[1]
    found: Claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


@dataclass
class OpenId:
    """The provider. Whoever opens its page is `user` at once. `tamper` makes another ID token of a good one."""

    issuer: str = ""
    user: str = "ada"
    users: dict[str, Claims] = field(default_factory=dict)
    tamper: Callable[[str], Any] | None = None
    answers: dict[str, tuple[int, str | bytes]] = field(default_factory=dict)
    """Path -> status and body; bytes are packed."""
    held: threading.Event | None = None
    email_in: str = "id_token"
    asked: list[str] = field(default_factory=list)
    provider: Any = None

    def page(self, url: str) -> dict[str, str]:
        """What a browser brings to the redirect URL after it opened the page."""
        answer = httpx2.get(url, trust_env=False, timeout=PATIENCE_S, follow_redirects=False, verify=trusting_nobody())
        assert answer.status_code == 302, answer.text
        target = answer.headers["location"]
        assert target.startswith("http://127.0.0.1:"), target
        return {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}


class _Loopback(list[str]):
    """Redirect URLs of programs on the person's machine: their port is any (RFC 8252, 7.3)."""

    def __contains__(self, url: object) -> bool:
        return re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/callback", str(url)) is not None


def _provider(openid: OpenId) -> Provider:
    from pyop.authz_state import AuthorizationState
    from pyop.provider import Provider
    from pyop.subject_identifier import HashBasedSubjectIdentifierFactory
    from pyop.userinfo import Userinfo

    clients = {
        CLIENT_ID: {
            "client_id": CLIENT_ID,
            "client_secret": SECRET,
            "redirect_uris": _Loopback(),
            "response_types": ["code"],
            "token_endpoint_auth_method": "client_secret_basic",
        }
    }
    issuer = openid.issuer
    about = {
        "issuer": "https://op.example",
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "jwks_uri": f"{issuer}/jwks",
        "userinfo_endpoint": f"{issuer}/userinfo",
        "scopes_supported": ["openid", "email"],
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic"],
    }
    state = AuthorizationState(HashBasedSubjectIdentifierFactory("salt"))
    provider = Provider(new_key("one"), about, state, clients, Userinfo(openid.users))
    # It doesn't begin with an issuer without TLS.
    provider.configuration_information["issuer"] = issuer
    return provider


def _app(openid: OpenId) -> Flask:
    from flask import Flask, Response, redirect, request
    from pyop.exceptions import OAuthError

    app = Flask(__name__)

    @app.before_request
    def _before() -> Response | None:
        openid.asked.append(request.path)
        if openid.held and request.path != "/authorize":
            openid.held.wait(PATIENCE_S)
        if request.path in openid.answers:
            status, body = openid.answers[request.path]
            packed = {"content-encoding": "gzip"} if isinstance(body, bytes) else {}
            return Response(body, status, packed, content_type="application/json")
        return None

    @app.get("/.well-known/openid-configuration")
    def _about() -> Response:
        return Response(openid.provider.provider_configuration.to_json(), content_type="application/json")

    @app.get("/jwks")
    def _keys() -> Response:
        return Response(json.dumps(openid.provider.jwks), content_type="application/json")

    @app.get("/authorize")
    def _authorize() -> Any:
        asked = openid.provider.parse_authentication_request(request.query_string.decode())
        answer = openid.provider.authorize(asked, openid.user)
        return redirect(answer.request(asked["redirect_uri"]))

    @app.post("/token")
    def _token() -> Response:
        try:
            body, headers = request.get_data().decode(), dict(request.headers)
            answer = openid.provider.handle_token_request(body, headers, _in_token).to_dict()
        except OAuthError as error:
            return Response(json.dumps({"error": error.oauth_error}), 400, content_type="application/json")
        if openid.tamper:
            answer["id_token"] = openid.tamper(answer["id_token"])
        return Response(json.dumps(answer), content_type="application/json")

    def _in_token(user: str, _client: str) -> Claims:
        return dict(openid.users[user]) if openid.email_in == "id_token" else {}

    @app.get("/userinfo")
    def _userinfo() -> Response:
        answer = openid.provider.handle_userinfo_request(request.query_string.decode(), dict(request.headers))
        return Response(answer.to_json(), content_type="application/json")

    return app


@contextmanager
def running_openid() -> Iterator[OpenId]:
    """A provider that knows ada."""
    from werkzeug.serving import make_server

    openid = OpenId(users={"ada": {"email": "Ada@Example.org", "email_verified": True}})
    server = make_server("127.0.0.1", 0, _app(openid), threaded=True)
    openid.issuer = f"http://127.0.0.1:{server.server_port}"
    openid.provider = _provider(openid)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield openid
    finally:
        server.shutdown()
        thread.join(PATIENCE_S)
        server.server_close()
