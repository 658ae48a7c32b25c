"""Memory of the variants that answered the last requests of one gateway process.

A second one is kept of the responses that engines store, by the response's id.
"""

from penumbra.router.link.messages import Attribution

REMEMBERED = 100_000
"""Answers, at most, whose variant is remembered; at least half as many."""


class Served:
    """The variants that served the last requests of one process.

    There are two generations of them, so that remembering a request costs one insertion.

    Args:
        limit: Requests that are remembered at most.
    """

    __slots__ = ("_earlier", "_half", "_latest")

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._half = limit // 2
        self._latest: dict[bytes, tuple[Attribution, str]] = {}
        self._earlier: dict[bytes, tuple[Attribution, str]] = {}

    def remember(self, request_id: bytes, server: tuple[Attribution, str]) -> None:
        """Remember which variant answered a request.

        Args:
            request_id: Its id.
            server: The variant, and the tenant that had asked; shared between requests.
        """
        if len(self._latest) >= self._half:
            self._earlier, self._latest = self._latest, {}
        self._latest[request_id] = server

    def find(self, request_id: str, tenant: str) -> Attribution | None:
        """Find the variant that answered a tenant's request; None if it is not remembered here."""
        try:
            key = request_id.encode("latin-1")
        except UnicodeEncodeError:
            return None
        found = self._latest.get(key) or self._earlier.get(key)
        return found[0] if found is not None and found[1] == tenant else None
