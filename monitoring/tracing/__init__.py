"""Traces: off unless an endpoint is set; spans made from times that are known anyway.

Nothing but `penumbra.monitoring.tracing.export` imports OpenTelemetry, and that only when tracing
is on. Reading order: settings, context, span, tracer, export.
"""
