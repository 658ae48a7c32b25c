"""Addresses of the control processes of one store, and which one of them to try next."""

from collections.abc import Sequence

from penumbra.router.link.link_url import link_url


class ControlAddresses:
    """The addresses that a gateway or comparator was given, one of which leads.

    Args:
        urls: Base URLs, at least one.
        path: Path of the link.

    Raises:
        ValueError: One is no URL of a control process.
    """

    def __init__(self, urls: Sequence[str], path: str) -> None:
        self._links = {url.rstrip("/"): link_url(url, path) for url in urls}
        self._order = tuple(self._links)
        self._index = 0
        self._tried = 0

    @property
    def link(self) -> str:
        """WebSocket address to connect to now."""
        return self._links[self._order[self._index]]

    def turn(self, leader: str = "") -> bool:
        """Turn to the next address, after the one of now was no use.

        Args:
            leader: Base URL of the leader as a standby named it. It is only a hint which one of the
                given addresses to try: the token goes nowhere else.

        Returns:
            Whether all have been tried, so that a pause is due.
        """
        named = leader.rstrip("/")
        if named in self._links and named != self._order[self._index]:
            self._index = self._order.index(named)
        else:
            self._index = (self._index + 1) % len(self._order)
        self._tried += 1
        if self._tried < len(self._order):
            return False
        self._tried = 0
        return True
