"""Signals, statistics, metrics, traces, dashboards and alert rules. Knows no HTTP and no Ray."""
