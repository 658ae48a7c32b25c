"""Processes of a run: pinned to a core, measured with all their children, never left behind."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway.build import MissingError

_STOP_SECONDS = 3.0
_CPU_CLOCK = 2
_IDLE_FIELDS = (3, 4)


@dataclass(frozen=True)
class Memory:
    """Resident memory of one target, in MB of 10^6 bytes."""

    rss_mb: tuple[float, ...]
    """VmRSS of each process, shared pages counted in each."""
    pss_mb: float
    """All processes together, shared pages counted once."""


class Running:
    """A process that was started, in a session of its own."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen = popen
        self.log = log

    def pids(self) -> list[int]:
        """The process and all its descendants."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (parent := _parent(entry)) is not None:
                children.setdefault(parent, []).append(int(entry.name))
        found = [self._popen.pid]
        for pid in found:
            found.extend(children.get(pid, ()))
        return found

    def cpu_seconds(self) -> float:
        """CPU time of the process and its descendants so far, all their threads."""
        # The kernel's clock of another process (see clock_getcpuclockid): its pid, inverted.
        return sum(time.clock_gettime((~pid << 3) | _CPU_CLOCK) for pid in self.pids())

    def memory(self) -> Memory:
        """Memory and CPU that the process and its descendants hold now."""
        pids = self.pids()
        rss = tuple(_field_mb(Path(f"/proc/{pid}/status"), "VmRSS:") for pid in pids)
        pss = sum(_field_mb(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") for pid in pids)
        return Memory(rss_mb=rss, pss_mb=pss)

    def check(self) -> None:
        """Does nothing while the process lives.

        Raises:
            MissingError: it has ended; the text is its last words.
        """
        if self._popen.poll() is not None:
            raise MissingError(f"ended with {self._popen.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "(it said nothing)"

    def stop(self) -> None:
        """Ends the process and whatever it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._popen.pid, number)
            except ProcessLookupError:
                break
            try:
                self._popen.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        self._popen.wait()


@contextmanager
def running(
    command: Sequence[str], *, core: int, log: Path, env: Mapping[str, str], cwd: Path
) -> Iterator[Running]:
    """Starts a process on one core and ends it with the block, however that ends.

    The kernel kills it as well when this process dies without a word.
    """
    prefix = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(core)]
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [*prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    process = Running(popen, log)
    try:
        yield process
    finally:
        process.stop()


def cores() -> tuple[int, int]:
    """The core of the target, and the core of everything else.

    Raises:
        MissingError: this machine cannot pin processes to two cores.
    """
    for tool in ("taskset", "setpriv"):
        if shutil.which(tool) is None:
            raise MissingError(f"{tool} is not installed (package util-linux)")
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise MissingError("two CPU cores are needed: one for the target, one for the load")
    return allowed[0], allowed[1]


def busy_seconds(core: int) -> float:
    """For how long a core has worked since the machine started, for whomever; to 10 ms."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            busy = sum(int(t) for i, t in enumerate(ticks[:8]) if i not in _IDLE_FIELDS)
            return busy / os.sysconf("SC_CLK_TCK")
    raise MissingError(f"/proc/stat has no cpu{core}")


def wait_until(deadline_seconds: float, ready: Callable[[], str | None], process: Running) -> None:
    """Asks `ready` until it has no fault to name.

    Raises:
        MissingError: the process ended, or the time is up.
    """
    end = time.monotonic() + deadline_seconds
    reason = "no answer"
    while time.monotonic() < end:
        process.check()
        fault = ready()
        if fault is None:
            return
        reason = fault
        time.sleep(0.1)
    raise MissingError(
        f"not ready in {deadline_seconds:.0f} s ({reason}); log: {process.last_words()}"
    )


def _parent(entry: Path) -> int | None:
    try:
        # The second field is the name in brackets, which may hold anything; the parent comes after.
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _field_mb(path: Path, name: str) -> float:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise MissingError(f"{path} has no {name}")
