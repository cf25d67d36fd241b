"""Traces: W3C trace context in and out of every call; exported by OTLP only where a collector is configured.

`OTEL_EXPORTER_OTLP_ENDPOINT` (OpenTelemetry's own variable, as are the others that the exporter reads) switches the
export on. Without it spans still have ids, so that logs of different services can be joined by trace id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, propagate, trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind

OTLP_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
_tracer = trace.get_tracer("openagents")


def configure_tracing(service: str, env: Mapping[str, str] = os.environ) -> TracerProvider:
    """Set up tracing for the process. Call `shutdown()` on the result at the end: it sends what is left."""
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    if env.get(OTLP_VARIABLE):
        # Imported here: it costs 100 ms, and most installations have no collector.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def start_server_span(name: str, carrier: Mapping[str, str]) -> Span:
    """Start the span of an incoming call and make it current for the rest of the task (which ends with the call)."""
    span = _tracer.start_span(name, context=propagate.extract(carrier), kind=SpanKind.SERVER)
    context.attach(trace.set_span_in_context(span))
    return span


@contextmanager
def span(name: str, **attributes: str | int | float | bool) -> Iterator[Span]:
    """A span around a piece of work."""
    with _tracer.start_as_current_span(name, attributes=attributes) as current:
        yield current


def outgoing_headers() -> dict[str, str]:
    """`traceparent` (and `tracestate`) of the current span, for a further call; empty outside of one."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier
