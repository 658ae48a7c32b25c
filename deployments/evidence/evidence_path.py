"""Path of the evidence over the observations, in a bounded number of points. Pure."""

POINTS = 200
"""A path has fewer points than this."""


class EvidencePath:
    """Points (count, evidence) at even distances; the distance grows with the path."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self._stride = 1

    def add(self, count: int, evidence: float) -> None:
        """Adds a point after an observation, if the last point is far enough away."""
        if not self.points or count - self.points[-1][0] >= self._stride:
            self._append(count, evidence)

    def end(self, count: int, evidence: float) -> None:
        """Adds the final point, however close the last one is."""
        if self.points and self.points[-1][0] == count:
            del self.points[-1]
        self._append(count, evidence)

    def _append(self, count: int, evidence: float) -> None:
        self.points.append((count, evidence))
        if len(self.points) >= POINTS:
            self._stride *= 2
            self.points = self.points[1::2]
