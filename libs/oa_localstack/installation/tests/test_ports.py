"""Ports come from one base; a taken one is named together with the part that wants it."""

from __future__ import annotations

import os
import socket

import pytest

from oa_base.refusal import Refusal
from oa_localstack.installation.ports import USES, Ports
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.postgres import free_port


def test_the_documented_defaults() -> None:
    ports = Ports.from_env({})

    assert (ports.control_http, ports.khala_ws) == (8080, 8090)
    assert [ports.control_grpc, ports.runtime_grpc, ports.projector_grpc] == [9080, 9081, 9082]
    assert [ports.control_ops, ports.runtime_ops, ports.projector_ops, ports.gateway_ops] == [9180, 9181, 9182, 9183]
    assert ports.gateway_grpc == 9083
    assert ports.postgres == 9190


def test_the_base_moves_every_port() -> None:
    moved, usual = Ports.from_env({"OA_PORT_BASE": "18080"}), Ports.from_env({})

    assert {moved.of(use) - usual.of(use) for use in USES} == {10_000}


@pytest.mark.parametrize("use", USES, ids=lambda use: use.env)
def test_each_port_can_be_moved_alone(use: object) -> None:
    assert use in USES
    chosen = next(candidate for candidate in USES if candidate is use)
    moved, usual = Ports.from_env({chosen.env: "4242"}), Ports.from_env({})

    assert moved.of(chosen) == 4242
    assert all(moved.of(other) == usual.of(other) for other in USES if other is not chosen)


@pytest.mark.parametrize("text", ["0", "65536", "-1", "80.5", "eighty", " 80", "٨٠"])
def test_what_is_no_port_is_refused_by_name(text: str) -> None:
    with pytest.raises(Refusal, match="OA_KHALA_WS_PORT") as refusal:
        Ports.from_env({"OA_KHALA_WS_PORT": text})
    assert refusal.value.reason == "invalid_setting"


def test_every_port_of_the_formula_is_checked_before_a_start() -> None:
    assert [use.field for use in USES] == list(PORT_OFFSETS)


def test_a_base_too_high_for_its_offsets_is_refused() -> None:
    with pytest.raises(Refusal) as refusal:
        Ports.from_env({"OA_PORT_BASE": "65000"})
    assert refusal.value.reason == "invalid_setting"


def test_two_uses_of_one_port_are_refused() -> None:
    with pytest.raises(Refusal, match=r"OA_CONTROL_HTTP_PORT and OA_KHALA_WS_PORT both come to 8080"):
        Ports.from_env({"OA_KHALA_WS_PORT": "8080"})


def test_a_port_in_use_is_named_with_who_wants_it_and_who_has_it() -> None:
    base = free_port(tuple(PORT_OFFSETS.values()))
    ports = Ports.from_env({}, base)
    ports.ensure_free()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", ports.khala_ws))
        holder.listen()

        with pytest.raises(Refusal) as refusal:
            ports.ensure_free()

    assert refusal.value.reason == "port_in_use"
    assert refusal.value.metadata == {"port": str(ports.khala_ws), "wanted_by": "khala_gateway"}
    for part in (str(ports.khala_ws), "khala_gateway", "OA_KHALA_WS_PORT", "OA_PORT_BASE", f"pid {os.getpid()}"):
        assert part in refusal.value.message


def test_an_address_that_can_not_be_used_is_not_called_a_port_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user may have no low ports, and a machine no IPv4 on its loopback."""
    ports = Ports.from_env({}, free_port(tuple(PORT_OFFSETS.values())))
    monkeypatch.setattr("oa_localstack.installation.ports.HOST", "192.0.2.1")

    with pytest.raises(Refusal, match=r"of 192\.0\.2\.1 can't be used \(Cannot assign requested address\)") as refusal:
        ports.ensure_free()

    assert "is in use" not in refusal.value.message
