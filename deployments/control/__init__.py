"""Carries out changes: commits events, publishes epochs, keeps rollouts, acts on alerts."""
