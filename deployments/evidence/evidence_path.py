"""The path that evidence took, in at most so many points however long it is. Pure."""

POINTS = 200


class EvidencePath:
    """(count, evidence) at even distances that grow with the path."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self._stride = 1

    def add(self, count: int, evidence: float) -> None:
        """One more observation."""
        if not self.points or count - self.points[-1][0] >= self._stride:
            self._append(count, evidence)

    def end(self, count: int, evidence: float) -> None:
        """What it came to: a point however close the one before is."""
        if self.points and self.points[-1][0] == count:
            del self.points[-1]
        self._append(count, evidence)

    def _append(self, count: int, evidence: float) -> None:
        self.points.append((count, evidence))
        if len(self.points) >= POINTS:
            self._stride *= 2
            self.points = self.points[1::2]
