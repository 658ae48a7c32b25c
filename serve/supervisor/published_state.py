"""Writes and shows the state of an installation; a fault of either never ends the installation.

A full disk must not stop gateways that serve. What could not be written is logged, and written as
soon as there is room.
"""

import logging
import time
from collections.abc import Callable, Mapping

from penumbra.monitoring.log_limit import LogLimit
from penumbra.serve.supervisor.engines_status import EnginesStatusFile
from penumbra.serve.supervisor.folder import StateFolder
from penumbra.serve.supervisor.replicas_file import ReplicasFile
from penumbra.serve.supervisor.state import RunState, VariantRecord, write_state

log = logging.getLogger(__name__)

Observer = Callable[[RunState], None]
"""Called with the state after every change and every few seconds; must return at once."""


class PublishedState:
    """The state of one installation as others see it.

    Args:
        folder: The state folder; `state.json` and `replicas.json` are written there.
        observe: Shows the state to the operator.
        now: Monotonic clock, seconds.
        has_local_engines: Whether engines that are hosted run on this machine.
    """

    def __init__(
        self,
        folder: StateFolder,
        observe: Observer,
        now: Callable[[], float] = time.monotonic,
        *,
        has_local_engines: bool = True,
    ) -> None:
        self._folder = folder
        self._observe = observe
        self._replicas = ReplicasFile(folder.replicas)
        self._engines = EnginesStatusFile(folder, is_local=has_local_engines)
        self._is_written = True
        self._unwritten = LogLimit(now)
        self._unshown = LogLimit(now)

    def publish(self, state: RunState, variants: Mapping[str, VariantRecord]) -> None:
        """Write and show a state that has changed.

        Args:
            state: The state.
            variants: Application -> its variant's record.
        """
        try:
            write_state(self._folder.state, state)
            self._replicas.write(variants)
            self._engines.write(variants)
        except OSError as error:
            self._is_written = False
            if (left_out := self._unwritten.take()) is not None:
                where = str(self._folder.state)
                log.error(
                    "state_unwritten",
                    extra={"file": where, "error": str(error), "repeated": left_out},
                )
        else:
            self._is_written = True
            if self._unwritten.end():
                log.info("state_written", extra={"file": str(self._folder.state)})
        self.show(state)

    def refresh(self, state: RunState, variants: Mapping[str, VariantRecord]) -> None:
        """Show a state anew, and write it if that failed before."""
        if self._is_written:
            self.show(state)
        else:
            self.publish(state, variants)

    def show(self, state: RunState) -> None:
        """Show a state; its output may be a file on a disk that is full, or a pipe that is gone."""
        try:
            self._observe(state)
        except OSError as error:
            if (left_out := self._unshown.take()) is not None:
                log.error("state_unshown", extra={"error": str(error), "repeated": left_out})
        else:
            self._unshown.end()
