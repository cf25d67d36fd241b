"""A certificate and its key in files, and the checks before they are used."""

from __future__ import annotations

import re
import ssl
import stat
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from oa_base.refusal import Refusal

_BEGIN = re.compile(rb"^-----BEGIN (?:X509 )?CERTIFICATE-----", re.MULTILINE)


@dataclass(frozen=True)
class Variables:
    """The settings that name the files of a pair. The pair for outside callers has no authorities."""

    certificate: str
    key: str
    authorities: str = ""


SERVICE = Variables("OA_TLS_CERT_FILE", "OA_TLS_KEY_FILE", "OA_TLS_CA_FILE")
EDGE = Variables("OA_EDGE_TLS_CERT_FILE", "OA_EDGE_TLS_KEY_FILE")


@dataclass(frozen=True)
class PairFiles:
    """The files of a pair. `name` distinguishes it in metrics and logs, `variables` are the settings of its files."""

    name: str
    variables: Variables
    certificate: Path
    key: Path
    authorities: Path | None = None


@dataclass(frozen=True)
class Contents:
    """The bytes of the files."""

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: bytes = b""


@dataclass(frozen=True)
class Pair:
    """A usable certificate with its key. `authorities` is empty if clients need no certificate.

    `server` is for servers that take an SSLContext, `trust` for clients: the system's authorities and ours.
    """

    chain: bytes
    key: bytes = field(repr=False)
    authorities: bytes
    not_after: datetime
    server: ssl.SSLContext
    trust: ssl.SSLContext


def read_contents(files: PairFiles) -> Contents:
    """The contents of the files. Raises Refusal for one that can't be read, or a key that everybody could read."""
    key_variable = files.variables.key
    if _mode(files.key, key_variable) & stat.S_IROTH:
        message = f"{key_variable} names a file that every user of the machine can read; make it private (chmod o=)"
        raise Refusal("invalid_setting", message, field=key_variable)
    return Contents(
        certificate=_read(files.certificate, files.variables.certificate),
        key=_read(files.key, key_variable),
        authorities=_read(files.authorities, files.variables.authorities) if files.authorities else b"",
    )


def pair_of(files: PairFiles, contents: Contents, now: datetime) -> Pair:
    """The pair in the contents. Raises Refusal for a pair that can't be used, or not at this time."""
    variables = files.variables
    certificates = _certificates(contents.certificate, variables.certificate)
    _check_key(variables, contents.key, certificates[0])
    _check_time(variables.certificate, certificates, now)
    authorities = _certificates(contents.authorities, variables.authorities) if files.authorities else []
    _check_not_all_expired(variables.authorities, authorities, now)
    return Pair(
        chain=contents.certificate,
        key=contents.key,
        authorities=contents.authorities,
        not_after=min(certificate.not_valid_after_utc for certificate in certificates),
        server=_server_context(files),
        trust=_trust_context(variables.authorities, authorities),
    )


def _mode(path: Path, variable: str) -> int:
    try:
        return path.stat().st_mode
    except OSError as error:
        raise _unreadable(variable, error) from None


def _read(path: Path, variable: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(variable, error) from None


def _unreadable(variable: str, error: OSError) -> Refusal:
    message = f"{variable} names a file that can't be read ({error.strerror}); give one that this process may read"
    return Refusal("invalid_setting", message, field=variable)


def _certificates(pem: bytes, variable: str) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        message = f"{variable} names a file without certificates in PEM form; write the whole file anew"
        raise Refusal("invalid_setting", message, field=variable) from None
    if len(_BEGIN.findall(pem)) > len(found):  # a reader stops at one that is not complete
        message = f"{variable} names a file that ends within a certificate; write the whole file anew"
        raise Refusal("invalid_setting", message, field=variable)
    return found


def _check_key(variables: Variables, pem: bytes, certificate: x509.Certificate) -> None:
    variable = variables.key
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        message = f"{variable} names a file that is no unencrypted private key in PEM form; write the whole file anew"
        raise Refusal("invalid_setting", message, field=variable) from None
    try:
        certified = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        message = f"{variables.certificate} holds a certificate for a key of a kind that is not known here; get another"
        raise Refusal("invalid_setting", message, field=variables.certificate) from None
    if _encoded(key.public_key()) != _encoded(certified):
        message = f"{variable} is the key of another certificate than {variables.certificate}; write both files anew"
        raise Refusal("invalid_setting", message, field=variable)


def _encoded(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check_time(variable: str, certificates: list[x509.Certificate], now: datetime) -> None:
    for certificate in certificates:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now >= end:
            message = f"{variable} holds a certificate that expired at {end:%Y-%m-%dT%H:%M:%SZ}; renew it"
            raise Refusal("invalid_setting", message, field=variable)
        if now < begin:
            message = f"{variable} holds a certificate that is valid from {begin:%Y-%m-%dT%H:%M:%SZ}; check the clocks"
            raise Refusal("invalid_setting", message, field=variable)


def _check_not_all_expired(variable: str, authorities: list[x509.Certificate], now: datetime) -> None:
    """An authority that has expired may stand beside the next one."""
    if authorities and all(now >= authority.not_valid_after_utc for authority in authorities):
        message = f"{variable} holds only authorities that have expired; no handshake would succeed: add the next one"
        raise Refusal("invalid_setting", message, field=variable)


def _server_context(files: PairFiles) -> ssl.SSLContext:
    """A context from the files, which OpenSSL reads itself. If they have just changed, the next look finds it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")  # or it would ask on the terminal
    except (OSError, ValueError) as error:
        message = f"the pair can't be used ({type(error).__name__}); write both files anew"
        raise Refusal("invalid_setting", message, field=files.variables.certificate) from None
    return context


def _trust_context(variable: str, authorities: list[x509.Certificate]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    # As DER: what stands around certificates in PEM, comments for instance, need not be ASCII.
    data = b"".join(authority.public_bytes(Encoding.DER) for authority in authorities)
    try:
        if data:
            context.load_verify_locations(cadata=data)
    except ssl.SSLError as error:
        message = f"{variable} names a file with an authority that can't be used ({error.reason}); leave it out"
        raise Refusal("invalid_setting", message, field=variable) from None
    return context
