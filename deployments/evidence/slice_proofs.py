"""Proofs of a run's slices as one family, and the slices that were ever proven by it. Pure."""

from collections.abc import Iterable, Mapping

from penumbra.deployments.rollouts.record import builds_key
from penumbra.monitoring.stats.release import boundary_of, newly_proven, share_of_run


class SliceProofs:
    """Proofs of all slices of a model, with traffic or without.

    Args:
        slices: Every slice of the model.
        promotion_alpha: Probability that any slice beyond tolerance is called proven, in any run of
            the same builds.
        runs: Builds, by `builds_key` -> earlier runs of them that could prove a slice.
        validation: Earlier proofs of slices in this run; each counts as an earlier run does.
    """

    def __init__(
        self,
        slices: Iterable[str],
        promotion_alpha: float,
        runs: Mapping[str, int] | None = None,
        validation: int = 0,
    ) -> None:
        self.now: dict[str, float] = dict.fromkeys(slices, 1.0)
        """Slice -> its proof now; 1 before its first observation."""
        self.earlier_runs = 0
        """Earlier runs of the same builds that could prove a slice, validations included."""
        self._promotion_alpha = promotion_alpha
        self._runs = runs or {}
        self._validation = validation
        self._proven: dict[str, None] = {}
        self.identify({})

    @property
    def alpha(self) -> float:
        """Probability that any slice beyond tolerance is called proven in this run."""
        return self._promotion_alpha * share_of_run(self.earlier_runs)

    @property
    def proven(self) -> tuple[str, ...]:
        """Slices that are proven, in the order of the model; a later decline takes none back."""
        return tuple(name for name in self.now if name in self._proven)

    def identify(self, fingerprints: Mapping[str, str]) -> None:
        """Take in the digests of the builds that are compared."""
        self.earlier_runs = self._runs.get(builds_key(fingerprints), 0) + self._validation

    def note(self, proofs: Mapping[str, float]) -> None:
        """Take in new proofs of some slices at once, and remember the slices that they prove.

        Args:
            proofs: Slice -> its proof now.
        """
        self.now |= proofs
        if any(proof >= 1.0 / self.alpha for proof in proofs.values()):
            self._proven |= dict.fromkeys(newly_proven(self._family, self.alpha))

    def boundary(self, name: str) -> float:
        """Return the proof at which a slice is proven, with the others as they are now."""
        return boundary_of(name, self._family, self.alpha)

    @property
    def _family(self) -> dict[str, float]:
        return {name: proof for name, proof in self.now.items() if name not in self._proven}
