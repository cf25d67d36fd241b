"""Traces: W3C trace context in and out of every call; exported by OTLP only where a collector is configured.

`OTEL_EXPORTER_OTLP_ENDPOINT` (OpenTelemetry's own variable, as are the others that the exporter reads) switches the
export on. Without it, calls still have ids, so that logs of different services can be joined by trace id, but nothing
is recorded about them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

OTLP_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
_MAX_LINKS = 16
_PARENT_KEY = "traceparent"
_tracer = trace.get_tracer("openagents")
# Not the default, which also reads baggage: we use none, and it logs what strangers send as one.
_w3c = TraceContextTextMapPropagator()


class _Export:
    """Whether spans are exported. If not, traces that only a collector needs cost no more than this check."""

    on = False


def configure_tracing(service: str, env: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """Set up tracing for the process. Call the result at the end: it sends what is left."""
    if not env.get(OTLP_VARIABLE):
        return _nothing_is_left
    # Imported here, because it costs 150 ms, and most installations have no collector.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    _Export.on = True
    return provider.shutdown


def _nothing_is_left() -> None:
    pass


def start_server_span(name: str, carrier: Mapping[str, str]) -> Span:
    """Start the span of an incoming call and make it current for the rest of the task (which ends with the call)."""
    parent = _w3c.extract(carrier) if _PARENT_KEY in carrier else Context()
    span = _tracer.start_span(name, context=parent, kind=SpanKind.SERVER) if _Export.on else _unrecorded(parent)
    context.attach(trace.set_span_in_context(span))
    return span


def _unrecorded(parent: Context) -> Span:
    """A span that has ids and nothing else: a tenth of the work."""
    caller = trace.get_current_span(parent).get_span_context()
    span_id = _random_id(64)
    if caller.is_valid:
        return NonRecordingSpan(SpanContext(caller.trace_id, span_id, False, caller.trace_flags, caller.trace_state))
    return NonRecordingSpan(SpanContext(_random_id(128), span_id, False, TraceFlags(TraceFlags.SAMPLED)))


def _random_id(bits: int) -> int:
    """Zero is no id (W3C Trace Context, 3.2.2)."""
    return random.getrandbits(bits) or 1


def outgoing_headers() -> dict[str, str]:
    """`traceparent` (and `tracestate`) of the current span, for a further call; empty outside of one."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier)
    return carrier


def sampled_context() -> SpanContext | None:
    """The current span, if a collector gets it."""
    if not _Export.on:
        return None
    current = trace.get_current_span().get_span_context()
    return current if current.is_valid and current.trace_flags.sampled else None


def sampled_traceparent() -> str:
    """`traceparent` of the current span, if a collector gets it; else empty."""
    return outgoing_headers().get(_PARENT_KEY, "") if sampled_context() is not None else ""


@contextmanager
def root_span(
    name: str, began_ns: Callable[[], int], callers: Iterable[SpanContext | None], attributes: Mapping[str, int]
) -> Iterator[Span]:
    """A span of a trace of its own around work for several callers, some of which are linked. It began at `began_ns`.

    If spans are not exported, there is none, and `began_ns` is not called.
    """
    if not _Export.on:
        yield trace.INVALID_SPAN
        return
    distinct = {one.span_id: one for one in callers if one is not None}
    links = [Link(one) for one in islice(distinct.values(), _MAX_LINKS)]
    current = _tracer.start_span(
        name, context=Context(), kind=SpanKind.PRODUCER, links=links, start_time=began_ns(), attributes=attributes
    )
    with trace.use_span(current, end_on_exit=True):
        yield current


@contextmanager
def span_under(name: str, traceparent: str, attributes: Mapping[str, int]) -> Iterator[None]:
    """A span around work that was requested under the span that `traceparent` names; none if that is empty."""
    if not _Export.on or not traceparent:
        yield
        return
    parent = _w3c.extract({_PARENT_KEY: traceparent})
    with _tracer.start_as_current_span(name, context=parent, kind=SpanKind.CONSUMER, attributes=attributes):
        yield


def record_span(
    name: str, traceparent: str, times_ns: tuple[int, int], events_ns: Mapping[str, int], attributes: Mapping[str, int]
) -> None:
    """Record a span of finished work, with its begin and end and its events, under the one that `traceparent` names."""
    if not _Export.on:
        return
    began_ns, ended_ns = times_ns
    parent = _w3c.extract({_PARENT_KEY: traceparent})
    over = _tracer.start_span(name, context=parent, kind=SpanKind.CONSUMER, start_time=began_ns, attributes=attributes)
    for event, at_ns in events_ns.items():
        over.add_event(event, timestamp=at_ns)
    over.end(ended_ns)
