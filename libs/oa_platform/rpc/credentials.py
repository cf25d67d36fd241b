"""The credentials that gRPC shows and demands in TLS handshakes, from certificates that may change."""

from __future__ import annotations

import grpc

from oa_platform.tls.certificates import Certificates
from oa_platform.tls.pair import Pair


def server_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Credentials for a port. If there are authorities, clients must have a certificate of theirs."""
    shown = certificates.current

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before each handshake, in a thread of its own; None means "as before"."""
        nonlocal shown
        if certificates.current is shown:
            return None
        shown = certificates.current
        return _configuration(shown)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown),
        changed,  # type: ignore[arg-type]  # the stubs forget that None is an answer
        require_client_authentication=bool(shown.authorities),
    )


def channel_credentials(pair: Pair) -> grpc.ChannelCredentials:
    """Credentials for a channel. The server's certificate must be of our authorities and for the host called."""
    return grpc.ssl_channel_credentials(pair.authorities, pair.key, pair.chain)


def _configuration(pair: Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], pair.authorities or None)
