"""Certificates in files: which are used, which are refused and why, and how a change is taken up."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from oa_base.refusal import Refusal
from oa_platform.config.parsers import Address, target
from oa_platform.config.shared import EdgeTlsSettings, TlsSettings
from oa_platform.system.clock import SystemClock
from oa_platform.telemetry.metrics import REGISTRY
from oa_platform.tls.certificates import Certificates
from oa_platform.tls.pair import SERVICE, Contents, PairFiles
from oa_platform.tls.protection import Protection, edge_protection, service_protection
from oa_testing.peers.authority import Authority, replace_file
from oa_testing.waiting import PATIENCE_S, eventually

AUTHORITY = Authority()
FAR = Address("10.0.0.1", 9081)
NEVER_MS = 3_600_000


@pytest.fixture
def files(tmp_path: Path) -> PairFiles:
    """A good pair with its authority."""
    return PairFiles("service", SERVICE, *AUTHORITY.issue().write(tmp_path), AUTHORITY.write(tmp_path))


def _certificates(files: PairFiles, reload_interval_ms: int = NEVER_MS) -> Certificates:
    return Certificates(files, SystemClock(), reload_interval_ms)


def _metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"certificate": "service", **labels}) or 0


def _expired(files: PairFiles) -> None:
    AUTHORITY.issue(lives=timedelta(seconds=-1)).write(files.certificate.parent)


def _not_yet(files: PairFiles) -> None:
    AUTHORITY.issue(begins=timedelta(hours=1)).write(files.certificate.parent)


def _half_written(files: PairFiles) -> None:
    replace_file(files.certificate, AUTHORITY.issue().certificate[:200])


def _half_key(files: PairFiles) -> None:
    replace_file(files.key, files.key.read_bytes()[:50])


def _half_a_chain(files: PairFiles) -> None:
    replace_file(files.certificate, files.certificate.read_bytes() + Authority().certificate[:200])


def _half_an_authority(files: PairFiles) -> None:
    assert files.authorities
    replace_file(files.authorities, files.authorities.read_bytes() + Authority().certificate[:200])


def _key_of_no_known_kind(files: PairFiles) -> None:
    """A certificate for a key of an algorithm that nobody has: another OID, of the same length."""
    data = x509.load_pem_x509_certificate(files.certificate.read_bytes()).public_bytes(Encoding.DER)
    strange = data.replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d027f"))
    replace_file(files.certificate, ssl.DER_cert_to_PEM_cert(strange).encode())


def _key_of_another(files: PairFiles) -> None:
    replace_file(files.key, AUTHORITY.issue().key)


def _gone(files: PairFiles) -> None:
    files.certificate.unlink()


def _no_key(files: PairFiles) -> None:
    files.key.unlink()


def _world_readable(files: PairFiles) -> None:
    files.key.chmod(0o644)


def _no_authority(files: PairFiles) -> None:
    assert files.authorities
    replace_file(files.authorities, b"")


def _authorities_of_the_past(files: PairFiles) -> None:
    assert files.authorities
    past = [Authority(lives=timedelta(days=-days)).certificate for days in (1, 2)]
    replace_file(files.authorities, b"".join(past))


SPOILED = [
    (_expired, "CERT", "holds a certificate that expired at "),
    (_not_yet, "CERT", "holds a certificate that is valid from "),
    (_half_written, "CERT", "without certificates in PEM form"),
    (_half_a_chain, "CERT", "that ends within a certificate"),
    (_half_an_authority, "CA", "that ends within a certificate"),
    (_key_of_no_known_kind, "CERT", "for a key of a kind that is not known here"),
    (_half_key, "KEY", "is no unencrypted private key"),
    (_key_of_another, "KEY", "is the key of another certificate"),
    (_gone, "CERT", "can't be read (No such file or directory)"),
    (_no_key, "KEY", "can't be read (No such file or directory)"),
    (_world_readable, "KEY", "every user of the machine can read"),
    (_no_authority, "CA", "without certificates in PEM form"),
    (_authorities_of_the_past, "CA", "holds only authorities that have expired"),
]


@pytest.mark.parametrize(("spoil", "which", "why"), SPOILED)
async def test_a_pair_that_cannot_be_used_is_refused_at_the_start(
    files: PairFiles, spoil: Callable[[PairFiles], None], which: str, why: str
) -> None:
    spoil(files)
    with pytest.raises(Refusal) as refused:
        async with _certificates(files):
            pass
    assert refused.value.reason == "invalid_setting"
    assert refused.value.field == f"OA_TLS_{which}_FILE"
    assert why in refused.value.message


@pytest.mark.parametrize(("spoil", "which", "why"), SPOILED)
async def test_a_bad_change_leaves_the_old_pair_in_use_and_is_counted_and_said_once(
    files: PairFiles, spoil: Callable[[PairFiles], None], which: str, why: str
) -> None:
    async with _certificates(files) as certificates:
        before, failed = certificates.current, _metric("oa_tls_reloads_total", outcome="failed")
        not_after = _metric("oa_tls_not_after_seconds")
        spoil(files)
        with capture_logs() as logs:
            await certificates.look()
            await certificates.look()
        assert certificates.current is before
        assert _metric("oa_tls_reloads_total", outcome="failed") == failed + 2
        assert _metric("oa_tls_not_after_seconds") == not_after
        said = [entry for entry in logs if entry["event"] == "certificate_not_taken"]
        assert [(entry["field"], why in entry["why"]) for entry in said] == [(f"OA_TLS_{which}_FILE", True)]

        AUTHORITY.issue().write(files.certificate.parent)
        AUTHORITY.write(files.certificate.parent)
        await certificates.look()
        assert certificates.current is not before


@pytest.mark.parametrize("comment", ["# Münchner CA\n".encode(), "# Münchner CA\n".encode("latin-1")])
async def test_authorities_may_have_comments_in_any_encoding(files: PairFiles, comment: bytes) -> None:
    assert files.authorities is not None
    async with _certificates(files) as certificates:
        replace_file(files.authorities, comment + files.authorities.read_bytes())
        before = certificates.current
        await certificates.look()
        assert certificates.current is not before
        assert len(certificates.current.trust.get_ca_certs()) == len(before.trust.get_ca_certs())


async def test_an_authority_that_has_expired_may_stand_beside_the_next_one(files: PairFiles) -> None:
    assert files.authorities
    replace_file(files.authorities, Authority(lives=timedelta(days=-1)).certificate + files.authorities.read_bytes())
    async with _certificates(files) as certificates:
        assert certificates.current.authorities == files.authorities.read_bytes()


async def test_a_change_is_taken_up_by_itself(files: PairFiles) -> None:
    async with _certificates(files, reload_interval_ms=10) as certificates:
        before, taken = certificates.current, _metric("oa_tls_reloads_total", outcome="ok")
        assert _metric("oa_tls_not_after_seconds") == before.not_after.timestamp()
        AUTHORITY.issue(lives=timedelta(days=9)).write(files.certificate.parent)
        await eventually(lambda: certificates.current is not before)
        assert certificates.current.not_after > before.not_after
        assert _metric("oa_tls_not_after_seconds") == certificates.current.not_after.timestamp()
        await eventually(lambda: _metric("oa_tls_reloads_total", outcome="ok") == taken + 1)


async def test_a_look_that_breaks_is_not_the_last_one(files: PairFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def broken(_: PairFiles) -> Contents:
        asked.append(True)
        raise RuntimeError("can't start new thread")

    async with _certificates(files, reload_interval_ms=10) as certificates:
        before = certificates.current
        with monkeypatch.context() as broken_for_now, capture_logs() as logs:
            broken_for_now.setattr("oa_platform.tls.certificates.read_contents", broken)
            await eventually(lambda: bool(asked))
        AUTHORITY.issue().write(files.certificate.parent)
        await eventually(lambda: certificates.current is not before)
    assert "certificate_not_looked_at" in [entry["event"] for entry in logs]


async def test_what_expires_first_of_the_chain_counts(files: PairFiles) -> None:
    short = AUTHORITY.issue(lives=timedelta(hours=1)).certificate
    replace_file(files.certificate, files.certificate.read_bytes() + short)
    async with _certificates(files) as certificates:
        expected = x509.load_pem_x509_certificate(short).not_valid_after_utc
        assert certificates.current.not_after == expected


async def test_a_key_is_not_shown(files: PairFiles) -> None:
    async with _certificates(files) as certificates:
        assert "PRIVATE" not in repr(certificates.current)


async def test_some_of_the_files_are_not_enough(files: PairFiles) -> None:
    service = TlsSettings(cert_file=files.certificate)
    with pytest.raises(Refusal, match="OA_TLS_KEY_FILE and OA_TLS_CA_FILE must be set") as refused:
        async with service_protection(service, SystemClock()):
            pass
    assert refused.value.field == "OA_TLS_KEY_FILE"
    with pytest.raises(Refusal, match="OA_EDGE_TLS_CERT_FILE must be set"):
        async with edge_protection(EdgeTlsSettings(key_file=files.key), TlsSettings(), SystemClock()):
            pass


async def test_settings_become_protections(files: PairFiles) -> None:
    service = TlsSettings(cert_file=files.certificate, key_file=files.key, ca_file=files.authorities)
    edge = EdgeTlsSettings(cert_file=files.certificate, key_file=files.key)
    async with (
        service_protection(service, SystemClock()) as inside,
        edge_protection(edge, service, SystemClock()) as outside,
    ):
        assert inside.for_listener(FAR, "OA_GRPC_ADDRESS") is inside.for_channel(FAR) is inside.certificates
        assert inside.certificates
        assert inside.certificates.current.authorities == AUTHORITY.certificate
        assert outside.certificates
        assert not outside.certificates.current.authorities


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_certificate(host: str) -> None:
    address = Address(host, 1)
    protection = Protection()
    assert protection.for_listener(address, "OA_GRPC_ADDRESS") is protection.for_channel(address) is None
    protection.check_url(f"http://{address}", "OA_CONTROL_URL")


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "runtime.openagents.svc", "localhost.example.org"])
def test_elsewhere_without_a_certificate_is_refused(host: str) -> None:
    address = Address(host, 1)
    asks: tuple[Callable[[], object], ...] = (
        lambda: Protection().for_listener(address, "OA_GRPC_ADDRESS"),
        lambda: Protection().for_channel(address),
        lambda: Protection().check_url(f"http://{address}/x", "OA_CONTROL_URL"),
    )
    for ask in asks:
        with pytest.raises(Refusal, match=r"isn't loopback|neither https nor loopback") as refused:
            ask()
        assert "OA_ALLOW_PLAINTEXT=true" in refused.value.message
    Protection().check_url(f"https://{address}/x", "OA_CONTROL_URL")


async def test_listed_addresses_have_no_name_in_a_certificate(files: PairFiles) -> None:
    """gRPC would compare every replica's certificate with the whole list: no call would ever get through."""
    listed = target().parse("127.0.0.1:1,127.0.0.2:1")
    assert Protection().for_channel(listed) is None
    async with _certificates(files) as certificates:
        protection = Protection(certificates)
        assert protection.for_channel(target().parse("dns:///runtime.test:1")) is certificates
        with pytest.raises(Refusal, match="name all replicas by one DNS name") as refused:
            protection.for_channel(listed)
    assert (refused.value.reason, refused.value.field) == ("invalid_setting", "OA_TLS_CERT_FILE")


def test_plaintext_that_is_allowed_is_said() -> None:
    allowed = replace(Protection(), allow_plaintext=True)
    with capture_logs() as logs:
        assert allowed.for_listener(FAR, "OA_GRPC_ADDRESS") is allowed.for_channel(FAR) is None
        allowed.check_url("http://control:8080", "OA_CONTROL_URL")
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("plaintext", "warning")] * 3
    assert "OA_GRPC_ADDRESS is 10.0.0.1:9081" in logs[0]["what"]


async def test_the_watch_ends_with_its_owner(files: PairFiles) -> None:
    async with asyncio.timeout(PATIENCE_S), _certificates(files, reload_interval_ms=10):
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "certificates-service" in names
    assert "certificates-service" not in {task.get_name() for task in asyncio.all_tasks() if not task.done()}
