"""Ignores SIGHUP: there is nothing to read again, and its default is to end the process."""

import signal


def ignore_hangups() -> None:
    """Ignore SIGHUP from here on, also in processes that this one starts; for entry points.

    A terminal that is closed, `logrotate` and habits of other servers send it.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
