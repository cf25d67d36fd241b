"""What tests look at of traces."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span

from oa_platform.telemetry import tracing


def current_trace_id() -> str:
    """The current trace id in hex; empty outside of a span."""
    current = trace.get_current_span().get_span_context()
    return trace.format_trace_id(current.trace_id) if current.is_valid else ""


def recording() -> TracerProvider:
    """The provider of this process, which records every span; it sends none."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    return provider


@contextmanager
def span(name: str) -> Iterator[Span]:
    """A span around the block."""
    recording()
    with trace.get_tracer("test").start_as_current_span(name) as current:
        yield current


@contextmanager
def collected() -> Iterator[InMemorySpanExporter]:
    """As if there were a collector: the spans that end in the block."""
    provider = recording()
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing._Export.on = True
    try:
        yield exporter
    finally:
        tracing._Export.on = False
        exporter.shutdown()
