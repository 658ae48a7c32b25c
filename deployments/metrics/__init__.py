"""Metrics of the control process, and discovery of the other processes' metrics."""
