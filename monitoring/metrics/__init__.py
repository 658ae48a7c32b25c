"""Cells that count without a lock, the Prometheus exposition, and the build labels."""
