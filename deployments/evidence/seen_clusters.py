"""Memory that allows one bet for each prompt and each session: exact, and bounded. Pure."""

from collections import deque

from penumbra.deployments.rollouts.spec import REMEMBERED


class SeenClusters:
    """Prompts and sessions that have been bet on, the latest `REMEMBERED` of each."""

    def __init__(self) -> None:
        self._clusters = _Latest()
        self._sessions = _Latest()

    def take(self, cluster: int, session: int) -> bool:
        """Returns whether this pair may be bet on; if so, its prompt and session are used up.

        Args:
            cluster: Hash of the prompt.
            session: Hash of the session; 0 if there is none.
        """
        if cluster in self._clusters.values or (session and session in self._sessions.values):
            return False
        self._clusters.add(cluster)
        if session:
            self._sessions.add(session)
        return True


class _Latest:
    """The latest values that were added; each of them once."""

    def __init__(self) -> None:
        self.values: set[int] = set()
        # Not the order of a dict: to find its oldest key takes as long as it has gaps.
        self._order: deque[int] = deque()

    def add(self, value: int) -> None:
        """Add a value that is not among them; the oldest makes room."""
        self.values.add(value)
        self._order.append(value)
        if len(self._order) > REMEMBERED:
            self.values.discard(self._order.popleft())
