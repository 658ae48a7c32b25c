"""The path that evidence took, in at most so many points however long it is. Pure."""

from typing import Any

POINTS = 200


class Trail:
    """(count, evidence) at even distances that grow with the path."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self._stride = 1

    def add(self, count: int, evidence: float) -> None:
        """One more observation."""
        if self.points and count - self.points[-1][0] < self._stride:
            return
        self.points.append((count, evidence))
        if len(self.points) >= POINTS:
            self._stride *= 2
            self.points = self.points[1::2]

    def dump(self) -> dict[str, Any]:
        """JSON-able."""
        return {"points": [list(point) for point in self.points], "stride": self._stride}

    @classmethod
    def restore(cls, dumped: dict[str, Any]) -> "Trail":
        """Goes on where `dump` was."""
        trail = cls()
        trail.points = [(count, evidence) for count, evidence in dumped["points"]]
        trail._stride = dumped["stride"]
        return trail
