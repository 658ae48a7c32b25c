"""Variants hosted beside a control process: addresses, engines, and the files that tell of them.

The control process writes which engines are in force (`EnginesInForce`), and `penumbra up` starts
and stops them. `penumbra up` writes which of them answer (`EnginesStatus`). Each file has one
writer, is replaced in one step, and is read again every moment, so either process may be killed at
any time: what is in force is what is started in the end.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from penumbra.deployments.config.spec import EngineSpec, ModelSpec
from penumbra.deployments.history.hosted_engines import Engines

FileContent = TypeVar("FileContent", bound=BaseModel)

IN_FORCE = "engines.json"
STATUS = "engines-status.json"
READY = "ready"
"""Phase of an engine all of whose replicas answer."""

_STRICT = ConfigDict(extra="forbid", frozen=True)


class HostedEngine(BaseModel):
    """One engine that is to run here."""

    model_config = _STRICT

    model: str
    variant: str
    is_baseline: bool
    engine: EngineSpec

    @property
    def definition(self) -> str:
        """Digest of the engine's settings."""
        settings = json.dumps(definition_of(self.engine), sort_keys=True)
        return hashlib.sha256(settings.encode()).hexdigest()[:16]


class EnginesInForce(BaseModel):
    """The engines that are to run here, written by the control process."""

    model_config = _STRICT

    engines: tuple[HostedEngine, ...] = ()


class EngineStatus(BaseModel):
    """State of one engine."""

    model_config = _STRICT

    model: str
    variant: str
    definition: str
    """Digest of the settings that it was started with."""
    phase: str
    """`ready`, or another phase of `penumbra status`."""


class EnginesStatus(BaseModel):
    """State of the engines that run here, written by `penumbra up`."""

    model_config = _STRICT

    cores: int | None = None
    """Cores of the machine; None: the engines are placed on a Ray cluster."""
    engines: tuple[EngineStatus, ...] = ()


def app_name(model: str, variant: str) -> str:
    """Application name of a variant: readable, safe in a path, and unique.

    Model names may hold characters that paths and HAProxy's configuration do not allow; a name
    that had to be changed gets a short digest, so that two names never become one.
    """
    name = f"{model}-{variant}"
    safe = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    if safe == name:
        return name
    return f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def hosted_url(port: int, model: str, variant: str) -> str:
    """Base URL of a variant that is hosted here.

    Args:
        port: `ray.port`.
        model: Public model name.
        variant: Variant name.
    """
    return f"http://127.0.0.1:{port}/{app_name(model, variant)}"


def definition_of(engine: EngineSpec) -> dict[str, Any]:
    """The settings of an engine as the store keeps them."""
    return engine.model_dump(mode="json", exclude_defaults=True)


def engines_of(models: Mapping[str, ModelSpec]) -> dict[str, dict[str, dict[str, Any]]]:
    """The engines of a configuration, as the store keeps them; models without one are left out."""
    engines: dict[str, dict[str, dict[str, Any]]] = {}
    for name, model in models.items():
        for variant, found in model.variants.items():
            if found.engine is not None:
                engines.setdefault(name, {})[variant] = definition_of(found.engine)
    return engines


def read_engine(definition: Mapping[str, Any]) -> EngineSpec:
    """An engine that the store keeps.

    Raises:
        ValueError: A newer release has written it (pydantic's `ValidationError`).
    """
    return EngineSpec.model_validate_json(json.dumps(definition))


def engine_problems(engine: EngineSpec) -> Iterator[str]:
    """Find what keeps an engine from being started on this machine."""
    if engine.autoscaling is not None and engine.autoscaling.min == 0:
        # Ray scales up from zero when its own proxy sees a request; HAProxy sends none there.
        yield "autoscaling.min: found 0, wanted 1 or more: requests would not wake the variant"
    if engine.is_from_hub:
        return
    folder = Path(engine.source)
    if not folder.is_dir():
        yield f"source: found no folder {folder}, wanted one with config.json and the weights"
    elif not (folder / "config.json").is_file():
        yield f"source: found {folder} without config.json, wanted a model folder"


def core_problems(engines: Engines, cores: int) -> Iterator[str]:
    """Find out whether engines want more cores than there are.

    Args:
        engines: All of them.
        cores: Cores of the machine.
    """
    read = [read_engine(engine) for model in engines.values() for engine in model.values()]
    wanted = sum(engine.cpus * engine.bounds[0] for engine in read)
    if wanted > cores:
        yield (
            f"models.*.variants.*.engine.cpus: found {wanted:g} in all (replicas x cpus), wanted"
            f" at most {cores}, the cores of this machine: the last engines would never be placed"
        )


def ray_problems() -> Iterator[str]:
    """Find out whether Ray, which runs the engines, is missing; it is not imported."""
    if find_spec("ray") is None:
        yield (
            "variants with an `engine` need Ray and vLLM:"
            " pip install '.[cpu]' or '.[gpu]',"
            " or give every variant a `url`"
        )


def read_file(path: Path, kind: type[FileContent]) -> FileContent | None:
    """Read one of the two files; None if it is not there yet, or of another release.

    Raises:
        OSError: It cannot be read.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_file(path: Path, content: BaseModel) -> None:
    """Replace one of the two files in one step; only its owner may read it.

    Raises:
        OSError: It cannot be written.
    """
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content.model_dump_json(indent=2, exclude_defaults=True).encode() + b"\n")
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(path)
