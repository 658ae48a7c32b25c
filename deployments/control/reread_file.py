"""Reads the configuration file again after SIGHUP, and tells how it differs from what is in force.

Nothing of it comes into force: a file is a proposal (`penumbra apply`), and settings of the machine
take effect at the next start.
"""

import asyncio
import logging
from dataclasses import replace

from penumbra.deployments.config.hosted_here import Beside, HostedHere, host
from penumbra.deployments.config.local_settings import (
    local_differences,
    local_settings,
    without_engines,
)
from penumbra.deployments.control.configuration_at_start import FileAtStart, tell_difference
from penumbra.deployments.control.controller import Controller
from penumbra.deployments.errors import DeploymentsError

log = logging.getLogger(__name__)

_SHOWN_SETTINGS = 20


async def reread_file(controller: Controller, hosted: HostedHere, file: FileAtStart) -> None:
    """Read the file again and log the differences.

    Args:
        controller: Holds the configuration in force.
        hosted: The variants that are hosted here, with the settings of the start.
        file: The file.
    """
    if file.read is None:
        return
    try:
        spec, payload = await asyncio.to_thread(file.read)
    except DeploymentsError as error:
        log.warning("file_unreadable", extra={"file": file.name, "detail": error.message})
        return
    state = controller.state
    _, payload = host(spec, payload, Beside(folder=hosted.folder))
    known = replace(state, engines=hosted.in_force(state.engines))
    is_other = tell_difference(known, payload, file)
    running, now = local_settings(hosted.spec), local_settings(spec)
    later = [*local_differences(without_engines(running), without_engines(now))]
    if later:
        log.warning(
            "settings_differ", extra={"file": file.name, "settings": later[:_SHOWN_SETTINGS]}
        )
    if not is_other and not later:
        log.info("file_unchanged", extra={"file": file.name})
