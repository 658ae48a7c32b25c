"""Seeded simulations of the shipped statistics: `python -m benchmarks.sim`."""
