"""File descriptors of a process: each connection takes one."""

import logging
import resource

log = logging.getLogger(__name__)


def raise_descriptor_limit() -> None:
    """Raise this process's limit on open files as far as it may, and log the limit in force.

    Shells and service managers often set 1,024, which programs that use `select` rely on. The event
    loop here does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # some systems have a lower limit than they say
        hard = soft
    log.info("descriptor_limit", extra={"before": soft, "now": hard})
