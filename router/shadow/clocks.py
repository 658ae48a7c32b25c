"""Clocks of a comparator, passed in so that a test can bring its own."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clocks:
    """The two clocks of a comparator."""

    now: Callable[[], float]
    """CLOCK_MONOTONIC, seconds, by which gateways stamp what they mirror."""
    wall: Callable[[], float]
    """Unix seconds, by which observations are stamped."""
