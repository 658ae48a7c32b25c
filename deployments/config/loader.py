"""Loader of `penumbra.yaml`: reads a `PenumbraSpec`, and builds a routing table from it.

An error lists all problems at once; each names the file, the path in it, the value found and the
value wanted. Relative paths are relative to the file's folder.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from penumbra.deployments.config import error_words
from penumbra.deployments.config.shared_servers import shared_server_problems
from penumbra.deployments.config.spec import (
    HUB,
    MODEL_NAME,
    ControlSpec,
    EngineSpec,
    ModelSpec,
    PenumbraSpec,
)
from penumbra.deployments.config.yaml_files import read_mapping
from penumbra.deployments.errors import ConfigInvalid
from penumbra.router.bounds import MODEL_NAME_CHARS
from penumbra.router.flags.routing_table import NAME, Flag, ModelSnapshot, Snapshot, Variant
from penumbra.router.flags.rule_checks import one_of, problem, slice_problems
from penumbra.router.flags.validate import flag_problems
from penumbra.router.settings import GatewaySettings, TlsSettings, limit_problems
from penumbra.router.upstream.base_url import root_url

Settings = TypeVar("Settings", bound=BaseModel)

BaseUrlOf = Callable[[str, str], str]
"""(model, variant) -> base URL of the variant."""

_SQLITE = "sqlite:///"
_RESERVED = frozenset({"kill", "unkill", "pin", "unpin", "split"})
"""Last parts of admin paths; a model's name cannot end in one of them."""


def load(path: Path | str) -> PenumbraSpec:
    """Reads a configuration file that is proposed.

    Raises:
        ConfigInvalid: The file cannot be read or used; lists every problem.
    """
    spec = load_in_force(path)
    _require_own_servers(spec, str(path))
    return spec


def read_proposal(data: Mapping[str, Any], name: str) -> PenumbraSpec:
    """Reads a configuration that is proposed as data; its paths are taken as they are.

    Args:
        data: The content of a configuration file, as JSON has it.
        name: Name of the proposal, for errors.

    Raises:
        ConfigInvalid: It cannot be used; lists every problem.
    """
    spec = _validated(data, name)
    _require_own_servers(spec, name)
    return spec


def load_in_force(path: Path | str) -> PenumbraSpec:
    """Reads a configuration file that an installation may run with already.

    It is not refused for what would be refused today and does no harm to what is served: two
    variants at one server.

    Raises:
        ConfigInvalid: The file cannot be read or used; lists every problem.
    """
    spec = _validated(read_mapping(Path(path), "a mapping with `models`"), str(path))
    return _anchor(spec, Path(path).resolve().parent)


def _validated(data: Mapping[str, Any], file: str) -> PenumbraSpec:
    try:
        # Through JSON: strict validation takes a list for a tuple there, and only there.
        spec = PenumbraSpec.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise ConfigInvalid(file, error_words.problems(error, PenumbraSpec)) from error
    found = tuple(_problems(spec))
    if found:
        raise ConfigInvalid(file, found)
    return spec


def _require_own_servers(spec: PenumbraSpec, file: str) -> None:
    problems = tuple(
        f"models.{name}.{text}"
        for name, model in spec.models.items()
        for text in shared_server_problems(
            {variant: found.url for variant, found in model.variants.items() if found.url}
        )
    )
    if problems:
        raise ConfigInvalid(file, problems)


def build_snapshot(
    spec: PenumbraSpec, flags: Mapping[str, Flag], epoch: int, base_url_of: BaseUrlOf
) -> Snapshot:
    """Builds the routing table of a configuration.

    Args:
        spec: The configuration.
        flags: Model -> flag in force; a model without one gets the flag of the configuration.
        epoch: Version of the table.
        base_url_of: Returns the address of a hosted variant; not called for external ones.
    """
    models = {
        name: build_model(name, model, flags.get(name, model.flag), base_url_of)
        for name, model in spec.models.items()
    }
    return Snapshot(epoch=epoch, models=models)


def build_model(name: str, model: ModelSpec, flag: Flag, base_url_of: BaseUrlOf) -> ModelSnapshot:
    """Builds one model of a routing table."""
    variants = {
        variant_name: Variant(
            url=root_url(variant.url) if variant.url else base_url_of(name, variant_name),
            api_key_env=variant.api_key_env,
            ca_file=variant.ca_file,
        )
        for variant_name, variant in model.variants.items()
    }
    return ModelSnapshot(
        baseline=model.baseline,
        variants=variants,
        slices=model.slices,
        flag=flag,
        sticky_headers=model.sticky_headers,
    )


def _problems(spec: PenumbraSpec) -> Iterator[str]:
    for name, model in spec.models.items():
        path = f"models.{name}"
        if len(name) > MODEL_NAME_CHARS:
            yield problem(path, f"{len(name)} characters", f"at most {MODEL_NAME_CHARS}")
        if not re.match(MODEL_NAME, name) or name.rpartition("/")[2] in _RESERVED:
            yield problem(
                path, name, f"a name like {MODEL_NAME}, its last part none of {sorted(_RESERVED)}"
            )
        yield from (f"{path}.{text}" for text in _model_problems(name, model))
    yield from _key_problems(spec)
    try:
        GatewaySettings(host=spec.gateway.host, keys=spec.keys, snapshot=_NO_MODELS)
    except ValidationError as error:
        yield from (f"gateway.host: {detail['ctx']['error']}" for detail in error.errors())


_NO_MODELS = Snapshot(epoch=0, models={})


def _model_problems(name: str, model: ModelSpec) -> Iterator[str]:
    for variant in model.variants:
        if not re.match(NAME, variant):
            yield problem(f"variants.{variant}", variant, f"a name like {NAME}")
    if model.baseline not in model.variants:
        yield problem("baseline", model.baseline, one_of(model.variants))
        return
    yield from slice_problems(model.slices)
    # The check of the flag does not use the addresses: any URL will do.
    snapshot = build_model(name, model, model.flag, lambda _model, _variant: "http://localhost")
    yield from (f"flag.{text}" for text in flag_problems(snapshot, model.flag))


def _key_problems(spec: PenumbraSpec) -> Iterator[str]:
    digests = [key.sha256 for key in spec.keys]
    for index, digest in enumerate(digests):
        if digest in digests[:index]:
            yield problem(f"keys[{index}].sha256", digest, "a key that is not listed above")
    yield from limit_problems(spec.keys, spec.gateway.processes)


def _anchor(spec: PenumbraSpec, folder: Path) -> PenumbraSpec:
    models = {
        name: model.model_copy(
            update={
                "variants": {
                    variant_name: variant.model_copy(
                        update={
                            "engine": _anchor_engine(variant.engine, folder),
                            "ca_file": _anchor_file(variant.ca_file, folder),
                        }
                    )
                    for variant_name, variant in model.variants.items()
                }
            }
        )
        for name, model in spec.models.items()
    }
    store = spec.control.store
    if store is not None and store.startswith(_SQLITE) and store != f"{_SQLITE}:memory:":
        store = f"{_SQLITE}{(folder / store.removeprefix(_SQLITE)).resolve()}"
    return spec.model_copy(
        update={
            "models": models,
            "gateway": spec.gateway.model_copy(
                update={"tls": _anchor_tls(spec.gateway.tls, folder)}
            ),
            "state_dir": (folder / spec.state_dir).resolve(),
            "control": _anchor_control(spec.control, folder).model_copy(update={"store": store}),
        }
    )


def _anchor_file(file: str | None, folder: Path) -> str | None:
    return None if file is None else str((folder / file).resolve())


def _anchor_tls(tls: TlsSettings | None, folder: Path) -> TlsSettings | None:
    return tls and _anchored(tls, ("certificate", "key"), folder)


def _anchor_control(control: ControlSpec, folder: Path) -> ControlSpec:
    files = ("ca_file", "client_certificate", "client_key")
    tls = control.tls and _anchored(control.tls, ("certificate", "key", "client_ca"), folder)
    oidc = control.oidc and _anchored(control.oidc, ("ca_file",), folder)
    return _anchored(control, files, folder).model_copy(update={"tls": tls, "oidc": oidc})


def _anchored(settings: Settings, names: Iterable[str], folder: Path) -> Settings:
    """The settings with these paths, of which some may be None, as seen from a folder."""
    found = {name: getattr(settings, name) for name in names}
    files = {name: (folder / file).resolve() for name, file in found.items() if file is not None}
    return settings.model_copy(update=files)


def _anchor_engine(engine: EngineSpec | None, folder: Path) -> EngineSpec | None:
    if engine is None or engine.source.startswith(HUB):
        return engine
    return engine.model_copy(update={"source": str((folder / engine.source).resolve())})
