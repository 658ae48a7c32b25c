"""The registry of all metrics, spans and log events that Penumbra exports. Start at `registry`."""
