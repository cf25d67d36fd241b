"""The opening request and its answer, in HTTP."""

import json
from collections.abc import Sequence
from http import HTTPStatus

from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from oa_base.refusal import Refusal
from oa_platform.config.parsers import IpNetwork
from oa_platform.http.proxies import client_network
from services.khala_gateway.admission.app import Admission


def admit(request: Request, admission: Admission, connections: int, network: str) -> str:
    """The bearer token of `request`, empty without one. Raises Refusal, as `Admission.admit` does."""
    headers = request.headers
    origins, authorizations = headers.get_all("Origin"), headers.get_all("Authorization")
    return admission.admit(connections, network, request.path, origins, authorizations)


def network_of(request: Request, peer: str, trusted: Sequence[IpNetwork]) -> str:
    """The network of the client, to which limits apply."""
    return client_network(peer, ", ".join(request.headers.get_all("X-Forwarded-For")), trusted)


def refuse(protocol: ServerProtocol, refusal: Refusal) -> Response:
    """The HTTP answer to a request that is not admitted: the reason as JSON, with Retry-After where it helps."""
    body = json.dumps({"code": refusal.info.grpc_code.lower(), "reason": refusal.reason, "message": refusal.message})
    response = protocol.reject(HTTPStatus(refusal.info.http_status), body + "\n")
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "application/json"
    if refusal.retry_hint_ms:
        response.headers["Retry-After"] = str(refusal.retry_hint_s)
    return response
