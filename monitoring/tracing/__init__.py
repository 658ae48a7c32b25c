"""Traces: spans of requests, pairs and rollbacks. Off unless an endpoint is set.

Only `penumbra.monitoring.tracing.export` imports OpenTelemetry, and only when tracing is on.
Reading order: settings, context, span, tracer, export.
"""
