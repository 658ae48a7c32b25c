"""Flags: routing table, evaluation, bucketing, slices, validation, flagd import and export."""
