"""A certificate authority for tests: real certificates, for names and times of the test's choice.

They have all that RFC 5280 asks for, because CPython insists on it from 3.13 on.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

LOOPBACK_NAMES = ("localhost", "127.0.0.1")
_DAY = timedelta(days=1)
_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str = "tls") -> tuple[Path, Path]:
        """Write `<name>.crt` and `<name>.key`, replacing each as a whole; only its owner can read the key."""
        return replace_file(folder / f"{name}.crt", self.certificate), replace_file(folder / f"{name}.key", self.key)


class Authority:
    """Issues certificates."""

    def __init__(self, name: str = "Test authority", lives: timedelta = _DAY) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        own = (
            self._builder(self._name, self._key.public_key(), -10 * _DAY, lives)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_SIGNS_CERTIFICATES, critical=True)
        )
        self.certificate = own.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        """Its own certificate, in PEM."""

    def write(self, folder: Path, name: str = "ca") -> Path:
        """Write its certificate into `<name>.crt`."""
        return replace_file(folder / f"{name}.crt", self.certificate)

    def issue(self, *names: str, begins: timedelta = -10 * _DAY, lives: timedelta = _DAY) -> Issued:
        """A certificate for DNS names, IP addresses and URIs; without any, for loopback.

        It is valid from `begins` to `lives`, both counted from now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        alternatives = x509.SubjectAlternativeName([_general(name) for name in names or LOOPBACK_NAMES])
        builder = self._builder(subject, key.public_key(), begins, lives).add_extension(alternatives, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Issued(certificate.public_bytes(Encoding.PEM), key_pem)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, begins: timedelta, lives: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + lives)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def replace_file(path: Path, content: bytes) -> Path:
    """Write a file that only its owner can read, and replace the old one in one step."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return fresh.replace(path)


def _general(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def server_context(folder: Path, issued: Issued) -> ssl.SSLContext:
    """The context for a test's server that takes an SSLContext; the files stay in the folder."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*issued.write(folder))
    return context
