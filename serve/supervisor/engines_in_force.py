"""Follows the engines in force: has the fleet process run them.

The control process writes which engines are in force
(`penumbra.deployments.config.hosted_engines`). The file outlives the processes: what a killed
`penumbra up` had not carried out yet, the next one does.

Reading order: EngineFollower.run.
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from penumbra.deployments.config.hosted_engines import (
    IN_FORCE,
    EnginesInForce,
    HostedEngine,
    app_name,
    read_file,
)
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.serve.supervisor.fleet_process import FleetProcess
from penumbra.serve.supervisor.folder import StateFolder
from penumbra.serve.supervisor.hosted_layout import fleet_plan, hosted_record
from penumbra.serve.supervisor.served_models import ServedModels

SECONDS = 0.5
"""Pause between two looks."""

_log = logging.getLogger(__name__)


def kept_engines(folder: StateFolder) -> Sequence[HostedEngine] | None:
    """The engines that were in force when this folder's `penumbra up` ran last.

    Returns:
        None if that is not known: those of the configuration file are to run.
    """
    try:
        kept = read_file(folder.path / IN_FORCE, EnginesInForce)
    except OSError:
        return None
    return None if kept is None else kept.engines


class EngineFollower:
    """Keeps the fleet process at the engines in force.

    Args:
        spec: The configuration of the file; says where Ray runs.
        folder: The state folder.
        runtime: A folder with a short path, for sockets.
        fleet: The fleet process.
        served: Compares what variants serve with the baseline.
    """

    def __init__(
        self,
        spec: PenumbraSpec,
        folder: StateFolder,
        runtime: Path,
        fleet: FleetProcess,
        served: ServedModels,
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._runtime = runtime
        self._fleet = fleet
        self._served = served
        self._followed: Sequence[HostedEngine] | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            try:
                await self._look()
            except OSError as error:
                _log.warning("engines_not_followed", extra={"error": str(error)})

    async def _look(self) -> None:
        engines = await asyncio.to_thread(kept_engines, self._folder)
        if engines is None or engines == self._followed:
            return
        plan = fleet_plan(engines, self._spec, self._folder, self._runtime)
        records = {
            app_name(each.model, each.variant): hosted_record(each, self._spec, self._folder)
            for each in engines
        }
        self._served.know({each.model: each.variant for each in engines if each.is_baseline})
        await self._fleet.follow(plan, records)
        self._followed = engines
