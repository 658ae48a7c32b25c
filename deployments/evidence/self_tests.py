"""Last self-test of each comparator of a run, for as long as it says something. Pure.

A comparator whose self-test fails tests again every half minute. One that no longer does so is
gone, and its last failure must not break the instrument of all others for good. So it expires
after `EXPIRES_SECONDS` in which others' pairs came, by a clock that pairs alone move. Without any
pairs nothing is decided anyway, and a failure stands.

Comparators are told apart by machine and process. A new process of a machine that passes takes the
place of the one before it; if that one is there still, its next failure counts again.

Reading order: SelfTests.take, SelfTests.failure.
"""

from penumbra.deployments.evidence.evidence_clock import EvidenceClock
from penumbra.monitoring.observations import SelfTest

EXPIRES_SECONDS = 200.0
_LONGEST_GAP_SECONDS = 20.0
_MOST = 256

Reader = tuple[str, str]
"""(comparator and its machine, process start id)."""


class SelfTests:
    """The last self-tests of the comparators of a run."""

    def __init__(self) -> None:
        self.last: SelfTest | None = None
        """The one that came last, of any comparator."""
        self._clock = EvidenceClock(_LONGEST_GAP_SECONDS)
        self._failed: dict[Reader, tuple[SelfTest, float]] = {}
        """Comparator -> its last self-test, if that failed, and the clock then; the latest last."""

    def note_pair(self, source: str, at: float) -> None:
        """Take note that a comparator made a pair, whatever it is worth."""
        self._clock.take(source, at)

    def take(self, source: str, process_start_id: str, test: SelfTest) -> None:
        """Take a self-test.

        Args:
            source: The comparator and its machine.
            process_start_id: Random id of its process start.
            test: Its self-test.
        """
        self.last = test
        reader = source, process_start_id
        self._failed.pop(reader, None)
        if test.is_ok:
            self._failed = {key: told for key, told in self._failed.items() if key[0] != source}
            return
        self._failed[reader] = test, self._clock.seconds
        if len(self._failed) > _MOST:
            del self._failed[next(iter(self._failed))]

    @property
    def failure(self) -> str | None:
        """Reason why a comparator's scores cannot be trusted; None if all can."""
        for (source, _), (test, taken_at) in self._failed.items():
            if self._clock.seconds - taken_at < EXPIRES_SECONDS:
                return f"the self-test of {source} failed: {test.detail}"
        return None
