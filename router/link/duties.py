"""Parts of a process that use its link: observations and answers out, leases and feedback in."""

import platform
from collections.abc import Callable
from dataclasses import dataclass, field

from penumbra.monitoring.answers import AnswerCount
from penumbra.router.link.feedback import FeedbackSubmitter
from penumbra.router.link.lease import Lease
from penumbra.router.link.messages import COMPARATOR_PATH, PATH
from penumbra.router.link.observation_outbox import ObservationOutbox


def _none_stopped(now: float) -> dict[str, tuple[str, ...]]:
    del now
    return {}


@dataclass(frozen=True, slots=True)
class Duties:
    """The parts of a process that use the link, besides the one that takes routing tables."""

    outbox: ObservationOutbox | None = None
    """Observations to send."""
    lease: Lease | None = None
    """Leases to renew."""
    feedback: FeedbackSubmitter | None = None
    """Users' judgements to pass on."""
    answers: Callable[[], tuple[AnswerCount, ...]] | None = None
    """Tells the answers that clients of this gateway got in the last minute."""
    is_comparing: Callable[[], bool] | None = None
    """If given, this end is a comparator: when asked it gives a sign of life, provided that this
    returns True and it has the newest table."""
    stopped: Callable[[float], dict[str, tuple[str, ...]]] = _none_stopped
    """Tells the candidates whose evidence has stopped (`penumbra.router.mirror.evidence_flow`)."""
    kills: Callable[[], dict[str, str]] = dict
    """Tells the models that an operator killed in this process itself, and why."""
    machine: str = field(default_factory=platform.node)
    """Name of the machine, the same for a comparator and the gateways that it guards."""
    metrics: str = ""
    """Address of this process's metrics, as in `Hello`."""
    processes: int = 0
    """Gateway processes that share a tenant's limits, as in `Hello`; 0: this is no gateway."""
    needs_keys: bool = False
    """Whether callers need a key, as in `Hello`."""

    @property
    def path(self) -> str:
        """Path of the link at the control process."""
        return PATH if self.is_comparing is None else COMPARATOR_PATH
