"""Memory that allows one bet for each prompt and each session: exact, and bounded. Pure."""

from penumbra.deployments.rollouts.spec import REMEMBERED


class SeenClusters:
    """Prompts and sessions that have been bet on, the latest `REMEMBERED` of each."""

    def __init__(self) -> None:
        self._clusters: dict[int, None] = {}
        self._sessions: dict[int, None] = {}

    def take(self, cluster: int, session: int) -> bool:
        """Returns whether this pair may be bet on; if so, its prompt and session are used up.

        Args:
            cluster: Hash of the prompt.
            session: Hash of the session; 0 if there is none.
        """
        if cluster in self._clusters or (session and session in self._sessions):
            return False
        _remember(self._clusters, cluster)
        if session:
            _remember(self._sessions, session)
        return True


def _remember(seen: dict[int, None], value: int) -> None:
    seen[value] = None
    if len(seen) > REMEMBERED:
        del seen[next(iter(seen))]
