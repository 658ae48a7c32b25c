"""The gate before routes that only the leading control process can answer."""

from typing import Any

from fastapi import Depends

from penumbra.deployments.control.controller import Controller
from penumbra.deployments.errors import NotLeader


def leaders_only(controller: Controller) -> Any:
    """Makes a dependency: a standby answers 503 and names the leader."""

    def check() -> None:
        if controller.leader_address is not None:
            raise NotLeader.because_of(controller.leader_address)

    return Depends(check)
