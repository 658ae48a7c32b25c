"""Times of the fencing lease, all made from `control.lease_seconds`. Pure.

A leader that dies is followed within `fence_seconds` and one look of a standby; then the gateways
must find the new leader before their own leases are out. So the fence is the smaller part of a
lease, and is renewed several times before it is out.
"""

from dataclasses import dataclass

LONGEST_LEASE_SECONDS = 300.0
"""Longest lease of a gateway that an installation may have (`control.lease_seconds`)."""
_PART = 0.4
"""Part of the gateways' lease: more than half of it is left for gateways to find the new leader."""
_LONGEST_SECONDS = 4.0
"""A takeover takes less than five seconds, however long the leases are."""
_RENEWALS = 4
_LOOKS = 16
_UNCHANGED = 1.5


@dataclass(frozen=True, slots=True)
class FenceTimes:
    """Times of the right to write, in seconds."""

    lease_seconds: float
    """Longest time for which gateways are granted a lease."""

    @property
    def fence_seconds(self) -> float:
        """Time after which a leader that does not renew its right may be followed."""
        return min(_LONGEST_SECONDS, _PART * self.lease_seconds)

    @property
    def renew_seconds(self) -> float:
        """Interval of renewals."""
        return self.fence_seconds / _RENEWALS

    @property
    def look_seconds(self) -> float:
        """Interval at which a standby looks whether the right is free."""
        return self.fence_seconds / _LOOKS

    @staticmethod
    def unchanged_seconds(fence_seconds: float) -> float:
        """Time without a renewal, by the standby's own clock, after which a fence counts as out."""
        return _UNCHANGED * fence_seconds
