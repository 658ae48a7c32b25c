"""One bet for each prompt and each session: exact, within a bounded memory. Pure."""

from penumbra.deployments.rollouts.spec import REMEMBERED


class SeenClusters:
    """What has been bet on."""

    def __init__(self) -> None:
        self._clusters: dict[int, None] = {}
        self._sessions: dict[int, None] = {}

    def take(self, cluster: int, session: int) -> bool:
        """Whether this pair may be bet on; if so, nothing like it may again.

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
