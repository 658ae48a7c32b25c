"""Judges a run: folds reports into guardrail monitors and decides what they call for. Pure."""
