"""Judgement of a run: folds reports into guardrail monitors, and drafts decisions. Pure."""
