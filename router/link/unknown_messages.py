"""Log of the messages that a newer peer of a link sends and that this process does not know."""

import logging

from penumbra.router.link.messages import UnknownMessage

log = logging.getLogger(__name__)

_MOST_TYPES = 16
"""Types that are logged for one connection."""
_MOST_CHARS = 64
"""Characters of a type that are logged."""


class UnknownMessages:
    """The message types of one connection that were ignored; each is logged once.

    Args:
        peer: Name of the process at the other end.
    """

    __slots__ = ("_logged", "_peer")

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._logged: set[str] = set()

    def note(self, message: UnknownMessage) -> None:
        """Log that a message was ignored, unless one of its type was before."""
        name = message.type[:_MOST_CHARS]
        if name in self._logged or len(self._logged) >= _MOST_TYPES:
            return
        self._logged.add(name)
        log.info("link_message_unknown", extra={"peer": self._peer, "message_type": name})
