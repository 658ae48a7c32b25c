"""Writes the state of each hosted engine for the control process, which waits for new ones."""

import os
from collections.abc import Mapping

from penumbra.deployments.config.hosted_engines import (
    EnginesStatus,
    EngineStatus,
    write_file,
)
from penumbra.serve.supervisor.folder import StateFolder
from penumbra.serve.supervisor.state import VariantRecord


class EnginesStatusFile:
    """File of the engines' states that is kept up to date for the control process.

    Args:
        folder: The state folder.
        is_local: Whether the engines run on this machine, and not on a Ray cluster elsewhere.
    """

    def __init__(self, folder: StateFolder, *, is_local: bool) -> None:
        self._path = folder.engines_status
        self._cores = (os.cpu_count() or 1) if is_local else None
        self._written: EnginesStatus | None = None

    def write(self, records: Mapping[str, VariantRecord]) -> None:
        """Write the file if its content would change.

        Args:
            records: Application -> its variant's record.

        Raises:
            OSError: It cannot be written.
        """
        status = EnginesStatus(
            cores=self._cores,
            engines=tuple(
                EngineStatus(
                    model=record.model,
                    variant=record.variant,
                    definition=record.definition,
                    phase=record.phase.value,
                )
                for record in records.values()
                if record.definition is not None
            ),
        )
        if status != self._written:
            write_file(self._path, status)
            self._written = status
