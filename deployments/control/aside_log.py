"""Log lines of events that were set aside, because they cannot be read."""

import logging

from penumbra.deployments.history.set_aside import EVERY_MODEL, Aside

log = logging.getLogger(__name__)


def log_set_aside(known: Aside, now: Aside) -> None:
    """Log each event that has been set aside since.

    Args:
        known: Those before, by model.
        now: Those now.
    """
    for name, found in now.items():
        if known.get(name) is None:
            log.error(
                "event_set_aside",
                extra={
                    "model": None if name == EVERY_MODEL else name,
                    "epoch": found.epoch,
                    "kind": found.kind,
                    "detail": found.problem[:500],
                },
            )
