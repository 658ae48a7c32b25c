"""Settings of one machine: what a proposed configuration cannot change in a running installation.

Ports, processes, the store, engines and the like are read at a start. They are compared all the
same, so that no line of a file is left out silently. Pure.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from penumbra.deployments.config.error_words import shown
from penumbra.deployments.config.spec import PenumbraSpec

_STORE = "control.store"
_ENGINE = ".engine."
_ENVIRONMENT = ".engine.env."
_SECTIONS = ("state_dir", "gateway", "limits", "control", "shadow", "metrics", "ray")
_DIGEST_CHARS = 16
_PATH_CHARS = 200


def local_settings(spec: PenumbraSpec) -> dict[str, Any]:
    """The local settings of a configuration by their path, `gateway.port`, as JSON has them."""
    data = spec.model_dump(mode="json")
    found = dict(_flat({name: data[name] for name in _SECTIONS}, ""))
    for model, model_spec in spec.models.items():
        for variant, variant_spec in model_spec.variants.items():
            if variant_spec.engine is not None:
                path = f"models.{model}.variants.{variant}.engine"
                found |= _flat(variant_spec.engine.model_dump(mode="json"), path)
    return {path: _shown(path, value) for path, value in found.items()}


def local_differences(running: Mapping[str, Any], proposed: Mapping[str, Any]) -> Iterator[str]:
    """Describe each local setting in which a proposal differs from what a process started with.

    A setting that only one of them has, as those of an engine that is new, is named too.
    """
    for path in dict.fromkeys([*running, *proposed]):
        was, is_now = running.get(path), proposed.get(path)
        if was != is_now:
            what = "another value" if _may_be_secret(path) else f"{shown(was)} -> {shown(is_now)}"
            # JSON may hold lone surrogates, which no answer can.
            yield f"{path[:_PATH_CHARS]}: {what}".encode("utf-8", "backslashreplace").decode()


def without_engines(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings but those of engines."""
    return {path: value for path, value in settings.items() if _ENGINE not in path}


def _may_be_secret(path: str) -> bool:
    """Whether a setting may hold a password: it is told by its digest."""
    return path == _STORE or _ENVIRONMENT in path


def _flat(data: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict) and data:
        for name, value in data.items():
            yield from _flat(value, f"{path}.{name}" if path else name)
    else:
        yield path, data


def _shown(path: str, value: Any) -> Any:
    if not _may_be_secret(path) or value is None:
        return value
    return hashlib.sha256(str(value).encode()).hexdigest()[:_DIGEST_CHARS]
