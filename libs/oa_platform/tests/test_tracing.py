"""Trace context is W3C's, in and out; without a collector nothing is exported."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.resources import SERVICE_NAME

from oa_platform.telemetry.tracing import (
    OTLP_VARIABLE,
    outgoing_headers,
    record_span,
    root_span,
    sampled_context,
    sampled_traceparent,
    start_server_span,
)
from oa_platform.tests.traces import collected, current_trace_id, span
from oa_testing.logs import logged

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


async def test_a_call_goes_on_with_its_caller_trace() -> None:
    server_span = start_server_span("Service/Method", {"traceparent": PARENT, "tracestate": "theirs=1"})
    assert not server_span.is_recording(), "nobody would get it"
    assert current_trace_id() == TRACE_ID
    version, trace_id, span_id, flags = outgoing_headers()["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", TRACE_ID, "01")
    assert span_id != "b7ad6b7169203331"
    assert outgoing_headers()["tracestate"] == "theirs=1"


async def test_what_a_caller_does_not_sample_is_not_sampled_further_on() -> None:
    start_server_span("Service/Method", {"traceparent": PARENT.removesuffix("1") + "0"})
    assert outgoing_headers()["traceparent"].endswith("-00")


async def test_a_call_without_trace_begins_one() -> None:
    for carrier in ({}, {"traceparent": "nonsense"}):
        start_server_span("Service/Method", carrier)
        assert len(current_trace_id()) == 32
        assert current_trace_id() != TRACE_ID
        assert outgoing_headers()["traceparent"].endswith("-01")


async def test_a_call_is_recorded_where_there_is_a_collector() -> None:
    with collected() as spans:
        for carrier in ({"traceparent": PARENT}, {}):
            server_span = start_server_span("Service/Method", carrier)
            server_span.set_attribute("oa.reason", "ok")
            server_span.end()
        below, root = spans.get_finished_spans()
    assert (below.name, dict(below.attributes or {})) == ("Service/Method", {"oa.reason": "ok"})
    assert below.parent is not None
    assert trace.format_trace_id(below.parent.trace_id) == TRACE_ID
    assert root.parent is None


def test_outside_of_a_span_nothing_is_sent() -> None:
    assert outgoing_headers() == {}
    assert current_trace_id() == ""


def test_a_root_span_links_its_callers_and_is_gone_on_from_where_it_is_known() -> None:
    with collected() as spans:
        with span("caller"):
            caller = sampled_context()
        with span("another"), root_span("work", lambda: 1_000, [caller, None, caller], {"n": 2}):
            traceparent = sampled_traceparent()
        record_span("over", traceparent, (2_000, 5_000), {"first": 3_000}, {"n": 3})
        _, work, _, over = spans.get_finished_spans()
    assert caller is not None
    assert (work.name, work.start_time, work.parent, [link.context for link in work.links]) == (
        *("work", 1_000, None),
        [caller],
    )
    assert (over.name, over.start_time, over.end_time, over.events[0].timestamp) == ("over", 2_000, 5_000, 3_000)
    assert over.parent is not None
    assert (over.parent.trace_id, over.parent.span_id) == (work.context.trace_id, work.context.span_id)


def test_without_a_collector_nothing_is_traced_for_one() -> None:
    with span("caller"):
        assert (sampled_context(), sampled_traceparent()) == (None, "")
        with root_span("work", lambda: 1_000, [], {}) as work:
            assert not work.is_recording()
            assert sampled_traceparent() == ""
        record_span("over", PARENT, (2_000, 5_000), {}, {})


_TRACED = """
import sys
from oa_platform.telemetry.tracing import configure_tracing, start_server_span
end = configure_tracing("traced", __import__("os").environ)
start_server_span("Service/Method", {}).end()
end()
print("opentelemetry.sdk.trace" in sys.modules)
"""


class _Collector(TraceServiceServicer):
    """Keeps what it is sent, as (service, span)."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str]] = []

    def Export(self, request: ExportTraceServiceRequest, context: object) -> ExportTraceServiceResponse:
        for resource in request.resource_spans:
            service = next(each.value.string_value for each in resource.resource.attributes if each.key == SERVICE_NAME)
            self.spans += [(service, each.name) for scope in resource.scope_spans for each in scope.spans]
        return ExportTraceServiceResponse()


def _traced(env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", _TRACED], env=os.environ | env, capture_output=True, check=True)
    return done.stdout.decode().strip()


def test_a_process_sends_its_last_span_to_the_collector_before_it_ends() -> None:
    collector = _Collector()
    server = grpc.server(ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert _traced({OTLP_VARIABLE: f"http://127.0.0.1:{port}"}) == "True"
    server.stop(None).wait()
    assert collector.spans == [("traced", "Service/Method")]


def test_a_process_without_a_collector_does_not_load_what_sends_spans() -> None:
    assert _traced({OTLP_VARIABLE: ""}) == "False"


async def test_what_a_stranger_sends_as_baggage_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    start_server_span("Service/Method", {"traceparent": PARENT, "baggage": "what I want in your log"})
    assert not logged(caplog, "opentelemetry")
    assert "baggage" not in outgoing_headers()
