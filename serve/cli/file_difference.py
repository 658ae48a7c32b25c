"""Difference between a file and the configuration in force, told by `penumbra up` once it runs."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.serve.cli.admin_client import AdminError
from penumbra.serve.cli.apply import connect, plan_of, shared
from penumbra.serve.cli.plan_view import is_empty, plan_lines
from penumbra.serve.errors import ServeError
from penumbra.serve.supervisor.published_state import Observer
from penumbra.serve.supervisor.state import RunState

_REASON = "penumbra up: what differs?"


def difference_lines(spec: PenumbraSpec, file: Path, *, has_local: bool = False) -> list[str]:
    """The lines that tell how a file differs from what is in force; none if it does not.

    Args:
        spec: The file's configuration.
        file: The file.
        has_local: Whether settings of the machine are compared too; they take effect at a start.

    Raises:
        AdminError: The control process does not answer, or refuses the file.
    """
    with contextlib.closing(connect(spec)) as client:
        proposal = {"reason": _REASON, **shared(spec)}
        plan = plan_of(client, proposal if has_local else {**proposal, "local": None})
    if is_empty(plan):
        later = [step for step in plan["steps"] if step["action"] == "later"]
        return plan_lines(plan) if later else []
    return [
        f"The configuration in force is not that of {file}. To put the file into force:",
        f"  penumbra apply -f {file}",
        *plan_lines(plan),
    ]


def telling_difference(
    observe: Observer, spec: PenumbraSpec, file: Path, tell: Callable[[str], None]
) -> Observer:
    """An observer that also tells the difference, once everything is ready.

    Args:
        observe: Called first, for every state.
        spec: The file's configuration.
        file: The file.
        tell: Shows a line to the operator.
    """
    is_told = False

    def work() -> None:
        _tell_all(tell, lambda: difference_lines(spec, file))

    def observe_and_tell(state: RunState) -> None:
        nonlocal is_told
        observe(state)
        if state.is_ready and not is_told:
            is_told = True
            # The supervisor's loop waits for no answer.
            threading.Thread(target=work, name="file-difference", daemon=True).start()

    return observe_and_tell


def rereading(read: Callable[[], PenumbraSpec], file: Path, tell: Callable[[str], None]) -> None:
    """Read the file again, as after SIGHUP, and tell how it differs; returns at once.

    Args:
        read: Reads the file; raises ServeError if that fails.
        file: The file.
        tell: Shows a line to the operator.
    """

    def lines() -> list[str]:
        found = difference_lines(read(), file, has_local=True)
        return found or [f"{file} is what is in force."]

    threading.Thread(target=_tell_all, args=(tell, lines), name="file-reread", daemon=True).start()


def _tell_all(tell: Callable[[str], None], lines: Callable[[], list[str]]) -> None:
    try:
        found = lines()
    except (AdminError, ServeError, OSError) as error:
        found = [f"The file was not compared with the configuration in force: {error}"]
    with contextlib.suppress(OSError):  # the terminal may be gone
        for line in found:
            tell(line)
