"""Where the replicas of hosted variants answer, as the supervisor writes it beside the endpoints.

Read at each discovery, for replicas come and go; written whole, in one step. What cannot be read is
as if nothing were known: then discovery names the variant's route.
"""

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

log = logging.getLogger(__name__)


class EngineAddresses(BaseModel):
    """The replicas of one variant that run now."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(pattern=r"^/")
    """Of the metrics, on every replica's own port."""
    replicas: dict[str, str]
    """Number of the replica -> `HOST:PORT`. A number is given again once its replica is gone."""


Engines = dict[str, dict[str, EngineAddresses]]
"""Model -> variant -> its replicas; variants of which none is known are left out."""

_ADAPTER: TypeAdapter[Engines] = TypeAdapter(Engines)


def read_engines(path: Path | None) -> Engines:
    """The file's content; nothing if there is no file yet, or none that can be understood."""
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
    """Replace the file in one step."""
    new = path.with_suffix(".new")
    new.write_bytes(_ADAPTER.dump_json(engines, indent=2) + b"\n")
    new.replace(path)
