"""Ends of a link at a control process: whether it refused, and the leader that it named."""

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import CloseCode

from penumbra.router.link.messages import LEADER_HEADER

_UNAVAILABLE = 503


def is_refusal(error: Exception) -> bool:
    """Whether the operator has something to mend: a standby that refuses is in order."""
    is_standby = isinstance(error, InvalidStatus) and error.response.status_code == _UNAVAILABLE
    return isinstance(error, InvalidHandshake) and not is_standby


def leader_in(error: Exception) -> str:
    """The leader that a standby named when it refused or closed the link; empty if none."""
    if isinstance(error, InvalidStatus):
        return error.response.headers.get(LEADER_HEADER, "")
    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        return error.rcvd.reason if error.rcvd.code == CloseCode.TRY_AGAIN_LATER else ""
    return ""
