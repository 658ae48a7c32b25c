"""Metrics of a process: cells that count without a lock, the exposition, the build labels."""
