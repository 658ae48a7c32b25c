"""Facts about the watched engines that the `Comparator` and the `EngineChecks` share."""

from collections import deque
from collections.abc import Iterable, Sequence

from penumbra.monitoring.observations import Run
from penumbra.router.shadow.admission import EngineBudget, Gauges
from penumbra.router.shadow.clocks import Clocks
from penumbra.router.shadow.settings import ShadowSettings

SEQUENCES = 6
"""Compared sequences that are remembered of each model."""
SEQUENCE_TOKENS = 4096
"""A sequence longer than this is not remembered."""


class ScorerFacts:
    """Runs whose candidate's scorer was tested, and those whose scorer is unfit."""

    def __init__(self) -> None:
        self.is_awaited = False
        """Whether a run is compared only after its first test."""
        self.tried: set[Run] = set()
        """Runs whose candidate was tested, or could not be."""
        self.unfit: set[Run] = set()
        self._contradicted: set[Run] = set()

    def is_ready(self, run: Run) -> bool:
        """Whether the run may be compared."""
        return not self.is_awaited or run in self.tried

    def note(self, run: Run, *, is_unfit: bool) -> bool:
        """Note a test; returns whether it counts, beside a contradiction that was seen."""
        if run in self._contradicted:
            return False
        (self.unfit.add if is_unfit else self.unfit.discard)(run)
        return True

    def note_contradiction(self, run: Run) -> bool:
        """Note scores that are none, which stays for the run; returns whether it is new."""
        is_new = run not in self._contradicted
        self._contradicted.add(run)
        self.unfit.add(run)
        return is_new

    def forget_others(self, runs: Iterable[Run]) -> None:
        """Forget all but these runs."""
        current = set(runs)
        self.tried &= current
        self.unfit &= current
        self._contradicted &= current


class EngineFacts:
    """Facts about the watched engines: gauges, context lengths, compared sequences, time spent.

    `EngineChecks` notes gauges and context lengths; by them the `Comparator` decides whether and
    how much to compare. The `Comparator` notes the sequences that it compared, which `EngineChecks`
    uses for self-tests. Both charge the budget.

    Args:
        settings: Of the comparator.
        clocks: Time.
    """

    def __init__(self, settings: ShadowSettings, clocks: Clocks) -> None:
        self.budget = EngineBudget(settings.budget, clocks.now())
        """Engine seconds that may be spent."""
        self.scorers = ScorerFacts()
        """Tests of the candidates' scorers."""
        self.context_tokens: dict[str, int] = {}
        """Model -> longest sequence, in tokens, that all its watched builds take."""
        self._stale_seconds = settings.headroom.stale_seconds
        self._now = clocks.now
        self._gauges: dict[tuple[str, str], tuple[Gauges, float]] = {}
        self._sequences: dict[str, deque[tuple[Sequence[int], int]]] = {}

    def note_gauges(self, model: str, variant: str, gauges: Gauges) -> None:
        """Remember an engine's gauges, read just now."""
        self._gauges[model, variant] = (gauges, self._now())

    def fresh_gauges(self, model: str, variant: str) -> Gauges | None:
        """Return an engine's gauges; None if they were never read, or not lately."""
        gauges, at = self._gauges.get((model, variant), (None, 0.0))
        is_stale = self._now() - at > self._stale_seconds
        return None if is_stale else gauges

    def note_sequence(self, model: str, token_ids: Sequence[int], start: int) -> None:
        """Remember a compared sequence for self-tests, unless it is long.

        The sequences never leave the process.

        Args:
            model: Its model.
            token_ids: Prompt and response.
            start: Index of the first response token.
        """
        sequences = self._sequences.setdefault(model, deque(maxlen=SEQUENCES))
        if len(token_ids) <= SEQUENCE_TOKENS:
            sequences.append((token_ids, start))

    def recent_sequences(self, model: str) -> list[tuple[Sequence[int], int]]:
        """Return the model's sequences that were compared last, oldest first."""
        return list(self._sequences.get(model, ()))
