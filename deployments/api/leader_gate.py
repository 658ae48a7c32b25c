"""The gate before routes that only the leading control process can answer."""

from typing import Any

from fastapi import Depends

from penumbra.deployments.control.controller import Controller


def leaders_only(controller: Controller) -> Any:
    """Makes a dependency: a standby answers 503 and names the leader; so does one that begins."""
    return Depends(controller.standing.require_begun)
