"""Processes end with their parent, are found again, and are never mistaken for another."""

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

import psutil
import pytest

from penumbra.serve.processes import end_process, find_process, start_time_of

SLEEP = [sys.executable, "-c", "import signal; signal.pause()"]


Run = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def run_python() -> Iterator[Run]:
    """Starts scripts; ends what is left of them."""
    with contextlib.ExitStack() as stack:

        def run(code: str) -> subprocess.Popen[str]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", textwrap.dedent(code)],
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        yield run


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


def test_start_time_of_a_process_that_is_gone_identifies_none() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert start_time_of(gone.pid) == 0.0
    assert find_process(gone.pid, start_time_of(gone.pid)) is None


def test_process_is_found_by_id_and_start_time(sleeper: subprocess.Popen[bytes]) -> None:
    start_time = start_time_of(sleeper.pid)
    found = find_process(sleeper.pid, start_time)
    assert found is not None
    assert found.pid == sleeper.pid
    assert find_process(sleeper.pid, start_time - 60) is None


def test_ended_process_is_not_found(sleeper: subprocess.Popen[bytes]) -> None:
    start_time = start_time_of(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # Dead, and not reaped yet.
    assert find_process(sleeper.pid, start_time) is None


def test_recycled_id_is_never_ended(sleeper: subprocess.Popen[bytes]) -> None:
    end_process(sleeper.pid, start_time_of(sleeper.pid) - 60)
    assert sleeper.poll() is None


def test_process_is_ended_with_its_children(run_python: Run) -> None:
    parent = run_python(
        """
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        print(child.pid, flush=True)
        child.wait()
        """
    )
    family = [psutil.Process(parent.pid), psutil.Process(int(line_of(parent)))]
    end_process(parent.pid, start_time_of(parent.pid))
    assert psutil.wait_procs(family, timeout=10)[1] == []


def test_child_gets_sigterm_when_its_parent_is_killed(run_python: Run) -> None:
    parent = run_python(
        """
        import signal, subprocess, sys
        from penumbra.serve.processes import die_with_parent
        code = (
            "import signal, sys\\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('told', flush=True)))\\n"
            "print('up', flush=True)\\n"
            "signal.pause()"
        )
        child = subprocess.Popen([sys.executable, "-c", code], preexec_fn=die_with_parent())
        child.wait()
        """
    )
    assert line_of(parent) == "up"
    parent.kill()
    assert line_of(parent) == "told"


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
def test_orphans_are_adopted_and_ended_and_kept_ones_are_not() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import os, subprocess, sys
                from penumbra.serve.processes import become_subreaper, end_descendants
                become_subreaper()
                pause = [sys.executable, "-c", "import signal; signal.pause()"]
                kept = subprocess.Popen(pause)
                # A process whose parent leaves at once, in a session of its own, as daemons do.
                orphan = subprocess.run(
                    [sys.executable, "-c",
                     "import subprocess, sys;"
                     f"print(subprocess.Popen({pause!r}, start_new_session=True,"
                     " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)"],
                    capture_output=True, text=True, check=True,
                )
                pid = int(orphan.stdout)
                ended = end_descendants(keep=[kept.pid])
                print(ended == [pid], kept.poll() is None, os.path.exists(f"/proc/{pid}"))
                kept.kill()
                """
            ),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "True", "False"], done.stderr


def test_descendant_that_ignores_sigterm_is_killed(run_python: Run) -> None:
    process = run_python(
        """
        import psutil, subprocess, sys
        from serve import processes
        processes._TERM_SECONDS = 0.2
        signals = []
        send = processes._signal
        def note(process, number):
            signals.append(number.name)
            send(process, number)
        processes._signal = note
        code = (
            "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            "print('deaf', flush=True); signal.pause()"
        )
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        child.stdout.readline()
        processes.end_descendants()
        print(*signals, child.pid in psutil.pids(), flush=True)
        """
    )
    assert line_of(process) == "SIGTERM SIGKILL False"
    process.wait(10)


def test_a_look_that_missed_something_is_not_the_last(run_python: Run) -> None:
    """psutil does not list the children of a process that goes away during its walk."""
    process = run_python(
        """
        import subprocess, sys, psutil
        from serve import processes

        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        looks = [[], []]
        whole = processes._descendants
        processes._descendants = lambda keep: looks.pop() if looks else whole(keep)
        processes.end_descendants()
        print("alive" if psutil.pid_exists(child.pid) and child.poll() is None else "ended")
        """
    )
    assert line_of(process) == "ended"
