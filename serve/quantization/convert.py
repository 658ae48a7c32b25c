"""Quantizes a full-precision model folder: shard by shard, then one atomic rename."""

import json
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from penumbra.serve.quantization import manifest as manifests
from penumbra.serve.quantization.errors import (
    ExperimentalScheme,
    GroupSizeInvalid,
    NotEnoughDisk,
    TargetExists,
)
from penumbra.serve.quantization.manifest import Manifest
from penumbra.serve.quantization.schemes import RECIPES, Recipe, Scheme, quantization_config
from penumbra.serve.quantization.source import INDEX_NAME, Source, is_rounded, open_source

if TYPE_CHECKING:
    from torch import Tensor

OnTensor = Callable[[str, int, int], None]
"""Called with (tensor name, tensors done, tensors in all) after each tensor."""

DEFAULT_GROUP_SIZE: Final = 128
# What is copied beside the weights; anything else (records, checksums, licences) is of the source.
_COPIED: Final = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
_SPARE_BYTES: Final = 16 << 20


def quantize_folder(
    source: Path,
    target: Path,
    scheme: Scheme,
    *,
    group_size: int = DEFAULT_GROUP_SIZE,
    allow_experimental: bool = False,
    on_tensor: OnTensor = lambda _name, _done, _total: None,
) -> Manifest:
    """Make a quantized build of a Llama-like model folder that vLLM loads.

    The target appears complete or not at all; the source is only read. Peak memory is the output
    of the largest shard and one of its tensors in float32.

    Args:
        source: Full-precision folder: config.json and safetensors, sharded or not.
        target: The folder of the build; must not exist.
        scheme: The scheme of the build.
        group_size: In-features per scale; unused by a scheme with a scale per channel.
        allow_experimental: Whether a scheme that is expected to fail may be made.
        on_tensor: Called after each tensor.

    Returns:
        The manifest that was written as `penumbra.json`.

    Raises:
        QuantizationError: See `penumbra.serve.quantization.errors`; nothing is left behind.
    """
    recipe = RECIPES[scheme]
    if recipe.is_experimental and not allow_experimental:
        raise ExperimentalScheme(
            f"{scheme} is expected to lose answers; ask for it with --experimental."
        )
    if recipe.is_grouped and group_size < 1:
        raise GroupSizeInvalid(f"The group size is {group_size}; it must be at least 1.")
    opened = open_source(source)
    _check_target(source, target)
    _check_disk(opened, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.partial-"))
    try:
        _write_weights(opened, partial, recipe, group_size, on_tensor)
        _write_rest(opened, partial, scheme, group_size)
        made = manifests.describe(
            partial,
            scheme=scheme.value,
            bits=recipe.bits,
            group_size=group_size if recipe.is_grouped else None,
            method=recipe.method,
            source_sha256=manifests.content_sha256(manifests.read_manifest(source)),
            tools=tool_versions(),
        )
        manifests.write_manifest(partial, made)
        partial.chmod(0o755)  # mkdtemp's 0700 would hide the build from the serving user
        _check_target(source, target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return made


def tool_versions() -> dict[str, str]:
    """Versions of the libraries that round and pack; a change of any makes a build stale."""
    return {name: version(name) for name in ("compressed-tensors", "safetensors", "torch")}


def _check_target(source: Path, target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise TargetExists(f"{target} exists; remove it, or choose another target.")
    if target.resolve().is_relative_to(source.resolve()):
        raise TargetExists(f"{target} lies inside the source {source}; choose one beside it.")


def _check_disk(source: Source, target: Path) -> None:
    """The build is smaller than its source, so the source's size is enough."""
    standing = next(path for path in target.absolute().parents if path.exists())
    needed = source.weight_bytes + _SPARE_BYTES
    free = shutil.disk_usage(standing).free
    if free < needed:
        raise NotEnoughDisk(f"{standing} has {free} bytes free; up to {needed} are needed.")


def _write_weights(
    source: Source, folder: Path, recipe: Recipe, group_size: int, on_tensor: OnTensor
) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    from penumbra.serve.quantization.rounding import round_weight

    total = 0
    for shard in source.shards:
        with safe_open(shard, framework="pt") as file:
            total += len(file.keys())
    done = 0
    placed: dict[str, str] = {}
    size_bytes = 0
    for shard in source.shards:
        written: dict[str, Tensor] = {}
        with safe_open(shard, framework="pt") as file:
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                if is_rounded(name):
                    module = name.removesuffix(".weight")
                    written |= round_weight(module, tensor, recipe, group_size)
                else:
                    written[name] = tensor
                done += 1
                on_tensor(name, done, total)
        save_file(written, folder / shard.name, metadata={"format": "pt"})
        placed |= dict.fromkeys(written, shard.name)
        size_bytes += sum(tensor.nbytes for tensor in written.values())
    if source.is_indexed:
        index = {"metadata": {"total_size": size_bytes}, "weight_map": placed}
        _write_json(folder / INDEX_NAME, index)


def _write_rest(source: Source, folder: Path, scheme: Scheme, group_size: int) -> None:
    # The head has to be named even where it is tied: engines build it as a linear layer.
    config = {
        **source.config,
        "quantization_config": quantization_config(scheme, group_size, ["lm_head"]),
    }
    _write_json(folder / "config.json", config)
    for name in _COPIED:
        if (source.folder / name).exists():
            shutil.copyfile(source.folder / name, folder / name)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
