"""The durable store: events, observations, alerts, and the migrations of their tables."""
