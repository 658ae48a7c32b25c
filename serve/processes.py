"""Ends processes with their parent: finds all descendants and ends them.

`penumbra up` and the fleet process are child subreapers (Linux): a process that one of their
descendants leaves behind becomes their child. So a walk over their descendants finds every process
that was started, and no other. On other systems only direct children are covered.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Collection

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_TERM_SECONDS = 5.0
_KILL_SECONDS = 5.0
_POLL_SECONDS = 0.05
_CALM_LOOKS = 3
"""Walks in a row that must find nothing before the search ends."""
_MOST_LOOKS = 20


def become_subreaper() -> None:
    """Adopt orphans among this process's descendants."""
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> Callable[[], None]:
    """A `preexec_fn`: the child gets SIGTERM when this process dies, however it dies.

    It ignores SIGHUP until it has a handler of its own. All that this needs is looked up here,
    before the fork: the child only makes system calls.
    """
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # It died between fork and prctl.
            os._exit(1)

    return arrange


def end_descendants(keep: Collection[int] = ()) -> list[int]:
    """End every descendant of this process, except `keep` and theirs: SIGTERM, then SIGKILL.

    Returns:
        The ids of the processes that were still there.
    """
    ended: set[int] = set()
    # A look may miss what it should find: a process may start another while it is being ended, and
    # the children of one that goes away during the walk are not listed, for the walk has lost the
    # way to them. Ray's agents are such children, of a raylet that ends while we look.
    calm = 0
    for _ in range(_MOST_LOOKS):
        processes = _descendants(keep)
        if processes:
            calm = 0
            ended.update(process.pid for process in processes)
            _end(processes)
            continue
        calm += 1
        if calm == _CALM_LOOKS:
            break
        time.sleep(_POLL_SECONDS)
    reap_adopted()
    return sorted(ended)


def end_process(pid: int, start_time: float) -> None:
    """End one process that is not ours, and its descendants, if it is still the same one."""
    process = find_process(pid, start_time)
    if process is not None:
        _end([process, *process.children(recursive=True)])


def find_process(pid: int, start_time: float) -> psutil.Process | None:
    """The process with this id, unless the id now belongs to another one."""
    try:
        process = psutil.Process(pid)
        is_same = abs(process.create_time() - start_time) < 1.0
        is_alive = process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if is_same and is_alive else None


def wait_until_gone(pid: int, start_time: float, seconds: float) -> bool:
    """Whether a process ended in time; a process that waits to be reaped has ended."""
    deadline = time.monotonic() + seconds
    while find_process(pid, start_time) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def start_time_of(pid: int) -> float:
    """Start time of a process in Unix seconds; with the id it identifies the process.

    0.0 if the process is gone already: no process has that start time.
    """
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0.0


def reap_adopted(own: Collection[int] = ()) -> None:
    """Collect the exit status of adopted orphans, but not of `own` children: others await them."""
    for child in psutil.Process().children():
        try:
            if child.pid not in own and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)
        except (psutil.NoSuchProcess, ChildProcessError):
            continue


def _descendants(keep: Collection[int]) -> list[psutil.Process]:
    spared: set[int] = set(keep)
    found = []
    # Parents come before their children, so that a spared subtree is known when it is reached.
    for process in psutil.Process().children(recursive=True):
        try:
            if process.pid in spared or process.ppid() in spared:
                spared.add(process.pid)
            elif process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=_TERM_SECONDS)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=_KILL_SECONDS)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)  # psutil checks that the id was not recycled.
    except psutil.NoSuchProcess:
        return


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
