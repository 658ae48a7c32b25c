"""Signals of a mirrored pair: displacement and related figures, and the harm checks. Pure."""
