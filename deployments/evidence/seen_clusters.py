"""One bet for each prompt and each session: exact, within a bounded memory. Pure."""

from typing import Any

REMEMBERED = 250_000
"""Prompts, and sessions. The oldest are forgotten; the horizon of a run is far below."""


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

    def dump(self) -> dict[str, Any]:
        """JSON-able."""
        return {"clusters": list(self._clusters), "sessions": list(self._sessions)}

    @classmethod
    def restore(cls, dumped: dict[str, Any]) -> "SeenClusters":
        """Goes on where `dump` was."""
        clusters = cls()
        clusters._clusters = dict.fromkeys(dumped["clusters"])
        clusters._sessions = dict.fromkeys(dumped["sessions"])
        return clusters


def _remember(seen: dict[int, None], value: int) -> None:
    seen[value] = None
    if len(seen) > REMEMBERED:
        del seen[next(iter(seen))]
