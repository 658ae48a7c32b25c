"""Penumbra: a gateway that serves a model's builds side by side and keeps the switch safe."""
