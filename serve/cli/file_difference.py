"""Difference between a file and the configuration in force, told by `penumbra up` once it runs."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.serve.cli.admin_client import AdminError
from penumbra.serve.cli.apply import connect, plan_of, shared
from penumbra.serve.cli.plan_view import is_empty, plan_lines
from penumbra.serve.supervisor.published_state import Observer
from penumbra.serve.supervisor.state import RunState

_REASON = "penumbra up: what differs?"


def difference_lines(spec: PenumbraSpec, file: Path) -> list[str]:
    """The lines that tell how a file differs from what is in force; none if it does not.

    Raises:
        AdminError: The control process does not answer, or refuses the file.
    """
    with contextlib.closing(connect(spec)) as client:
        plan = plan_of(client, {"reason": _REASON, **shared(spec), "local": None})
    if is_empty(plan):
        return []
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
        try:
            lines = difference_lines(spec, file)
        except (AdminError, OSError) as error:
            lines = [f"The file was not compared with the configuration in force: {error}"]
        for line in lines:
            tell(line)

    def observe_and_tell(state: RunState) -> None:
        nonlocal is_told
        observe(state)
        if state.is_ready and not is_told:
            is_told = True
            # The supervisor's loop waits for no answer.
            threading.Thread(target=work, name="file-difference", daemon=True).start()

    return observe_and_tell
