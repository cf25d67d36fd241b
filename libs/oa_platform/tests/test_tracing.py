"""Trace context is W3C's, in and out; without a collector nothing is exported."""

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from oa_platform.telemetry.tracing import configure_tracing, outgoing_headers, span, start_server_span
from oa_platform.tests.traces import current_trace_id

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


def _configured() -> TracerProvider:
    current = trace.get_tracer_provider()
    return current if isinstance(current, TracerProvider) else configure_tracing("test", {})


async def test_a_call_goes_on_with_its_caller_trace() -> None:
    _configured()
    server_span = start_server_span("Service/Method", {"traceparent": PARENT})
    assert current_trace_id() == TRACE_ID
    with span("inside", size=3):
        version, trace_id, span_id, flags = outgoing_headers()["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", TRACE_ID, "01")
    assert span_id != "b7ad6b7169203331"
    server_span.end()


async def test_a_call_without_trace_begins_one() -> None:
    _configured()
    start_server_span("Service/Method", {"traceparent": "nonsense"}).end()
    assert len(current_trace_id()) == 32
    assert current_trace_id() != TRACE_ID


def test_outside_of_a_span_nothing_is_sent() -> None:
    assert outgoing_headers() == {}
    assert current_trace_id() == ""
