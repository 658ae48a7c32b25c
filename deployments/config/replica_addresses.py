"""Addresses of the replicas of hosted variants, in a file that the supervisor writes.

The file is read at each discovery, because replicas come and go, and is replaced in one step. A
file that cannot be read counts as empty: discovery then names the variant's route.
"""

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

log = logging.getLogger(__name__)


class EngineAddresses(BaseModel):
    """Addresses of the running replicas of one variant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(pattern=r"^/")
    """Path of the metrics on every replica's own port."""
    replicas: dict[str, str]
    """Number of the replica -> `HOST:PORT`. The number of a replica that is gone is used again."""


Engines = dict[str, dict[str, EngineAddresses]]
"""Model -> variant -> its replicas; variants without a known replica are left out."""

_ADAPTER: TypeAdapter[Engines] = TypeAdapter(Engines)


def read_engines(path: Path | None) -> Engines:
    """Reads the file; empty if it does not exist yet or cannot be understood."""
    if path is None:
        return {}
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        log.warning("replicas_unreadable", extra={"file": str(path), "error": str(error)})
        return {}


def write_engines(path: Path, engines: Engines) -> None:
    """Replaces the file in one step."""
    new = path.with_suffix(".new")
    new.write_bytes(_ADAPTER.dump_json(engines, indent=2) + b"\n")
    new.replace(path)
