"""The catalogue is complete, and a refusal carries what it was given and nothing that the catalogue doesn't know."""

import pickle

import grpc
import pytest

from oa_base.catalogue import ClientAction, ReasonInfo, all_reasons, is_reason, reason_info
from oa_base.refusal import Refusal
from openagents.common.v1 import errors_pb2


@pytest.mark.parametrize("info", all_reasons(), ids=lambda info: info.reason)
def test_every_reason_says_how_it_looks_on_each_transport(info: ReasonInfo) -> None:
    assert 400 <= info.http_status <= 599
    assert grpc.StatusCode[info.grpc_code] is not grpc.StatusCode.OK
    assert info.close_code in (0, 1008, 1009, 1011, 1012, 1013) or 4000 <= info.close_code <= 4999
    assert reason_info(info.reason) is info


def test_the_catalogue_is_the_whole_enum() -> None:
    names = {f"REASON_{info.reason.upper()}" for info in all_reasons()}
    assert names == set(errors_pb2.Reason.keys()) - {"REASON_UNSPECIFIED"}


def test_an_unknown_reason_is_a_defect() -> None:
    with pytest.raises(ValueError, match="no_such_reason"):
        Refusal("no_such_reason", "…")
    with pytest.raises(ValueError, match="unspecified"):
        Refusal("unspecified", "…")
    assert not is_reason("no_such_reason")


def test_a_negative_delay_is_a_defect() -> None:
    with pytest.raises(ValueError, match="retry_after_ms"):
        Refusal("overloaded", "…", retry_after_ms=-1)


def test_a_refusal_reads_as_one_line_and_survives_pickling() -> None:
    refusal = Refusal(
        "seq_conflict", "Read again.", field="expected_seq", metadata={"current_seq": "7"}, retry_after_ms=5
    )
    assert str(refusal) == "seq_conflict (expected_seq): Read again."
    assert str(Refusal("internal", "Sorry.")) == "internal: Sorry."
    copy = pickle.loads(pickle.dumps(refusal))  # noqa: S301 - our own bytes
    assert (copy.reason, copy.message, copy.field) == ("seq_conflict", "Read again.", "expected_seq")
    assert (copy.metadata, copy.retry_after_ms) == ({"current_seq": "7"}, 5)


@pytest.mark.parametrize(
    ("field", "seen"), [("argv[2]", "spec.argv[2]"), ("[2]", "spec[2]"), ("", "spec")], ids=["field", "index", "none"]
)
def test_a_refusal_names_its_field_from_outside(field: str, seen: str) -> None:
    assert Refusal("invalid_value", "…", field=field).under("spec").field == seen


def test_metadata_is_a_copy() -> None:
    given = {"a": "1"}
    refusal = Refusal("internal", "…", metadata=given)
    given["a"] = "2"
    assert refusal.metadata == {"a": "1"}


def test_who_has_to_wait_is_told_how_long_by_the_reason_if_not_by_the_refusal() -> None:
    assert Refusal("unavailable", "try again").retry_hint_ms == 500
    assert Refusal("unavailable", "try again", retry_after_ms=7).retry_hint_ms == 7
    assert [Refusal("unavailable", "", retry_after_ms=ms).retry_hint_s for ms in (7, 1000, 1001)] == [1, 1, 2]
    assert Refusal("unavailable", "try again").retry_after_ms == 0, "who was not told waits as it likes"
    waiting = [one for one in all_reasons() if one.http_status in (429, 503) and one.action is ClientAction.RETRY]
    silent = [one.reason for one in waiting if not one.retry_after_ms]
    assert silent == ["publish_rate_limited"], "its refusal says so each time"
