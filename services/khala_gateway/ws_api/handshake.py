"""The opening request: who may come in at all, before anything is verified."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus

from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from oa_base.refusal import Refusal
from oa_platform.auth.bearer import bearer_token

PATH = "/khala/v1/ws"


@dataclass(frozen=True, slots=True)
class Door:
    """What the opening request may be. `allowed_origins` holds the origins of our own web surfaces."""

    allowed_origins: Collection[str]


def check_request(request: Request, door: Door) -> str:
    """The bearer token of the Authorization header, empty without one.

    Raises Refusal: `not_found`, `origin_not_allowed`, `invalid_authorization_scheme`.
    """
    if request.path.partition("?")[0] != PATH:
        raise Refusal("not_found", f"there is nothing here; connect to {PATH}")
    _check_origin(request, door)
    header = ", ".join(request.headers.get_all("Authorization"))
    return bearer_token(header) if header else ""


def refuse(protocol: ServerProtocol, refusal: Refusal) -> Response:
    """The HTTP answer to a request that does not come in: the reason as JSON, with Retry-After where it helps."""
    body = json.dumps({"code": refusal.info.grpc_code.lower(), "reason": refusal.reason, "message": refusal.message})
    response = protocol.reject(HTTPStatus(refusal.info.http_status), body + "\n")
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "application/json"
    if refusal.retry_after_ms:
        response.headers["Retry-After"] = str(-(-refusal.retry_after_ms // 1000))
    return response


def _check_origin(request: Request, door: Door) -> None:
    origins = request.headers.get_all("Origin")
    if any(origin not in door.allowed_origins for origin in origins):
        raise Refusal("origin_not_allowed", "pages of this origin may not connect; add it to OA_ALLOWED_ORIGINS")
