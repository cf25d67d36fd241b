"""What tests look at of the current trace."""

from opentelemetry import trace


def current_trace_id() -> str:
    """The current trace id in hex; empty outside of a span."""
    current = trace.get_current_span().get_span_context()
    return trace.format_trace_id(current.trace_id) if current.is_valid else ""
