"""Rollouts: how a candidate gets from shadow to all traffic, and back."""
