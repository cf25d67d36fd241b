"""TLS on the way to a site: the public authorities, those of this machine, and those of a file of your own."""

from __future__ import annotations

import ssl
from pathlib import Path

import certifi
import grpc
import grpc.aio
import httpx

from oa_base.refusal import Refusal

SECURE = "grpcs://"
"""Precedes the address of a runtime's port that has a certificate."""
Options = list[tuple[str, int | str]]


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Make a context for HTTPS. Raises Refusal(invalid_setting) for a file that can't be used."""
    context = httpx.create_ssl_context()
    context.load_default_certs()
    if ca_file is not None:
        context.load_verify_locations(cadata=_authorities(ca_file))
    return context


def open_channel(address: str, options: Options, ca_file: Path | None) -> grpc.aio.Channel:
    """Open a channel to "host:port", or with TLS to "grpcs://host:port". Raises Refusal as `tls_context` does.

    gRPC does not know this machine's authorities: an authority that only the machine trusts must be in the file.
    """
    if not address.startswith(SECURE):
        return grpc.aio.insecure_channel(address, options=options)
    roots = certifi.contents() + (_authorities(ca_file) if ca_file is not None else "")
    credentials = grpc.ssl_channel_credentials(roots.encode())
    return grpc.aio.secure_channel(address.removeprefix(SECURE), credentials, options=options)


def _authorities(ca_file: Path) -> str:
    try:
        text = ca_file.read_text("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (OSError, ValueError) as error:
        message = f"{ca_file} can't be used ({type(error).__name__}); give a file of certificates in PEM form"
        raise Refusal("invalid_setting", message, field="OA_CA_FILE") from None
    return text
