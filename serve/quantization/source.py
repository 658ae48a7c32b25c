"""Reads a full-precision folder: its configuration, its shards, the weights to round."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penumbra.serve.quantization.errors import (
    AlreadyQuantized,
    ConfigUnreadable,
    SourceNotFound,
    UnsupportedArchitecture,
    WeightsMissing,
)

INDEX_NAME: Final = "model.safetensors.index.json"
_SUPPORTED: Final = ("LlamaForCausalLM", "MistralForCausalLM")
_PROJECTION: Final = re.compile(
    r"model\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj\.weight"
)


@dataclass(frozen=True, slots=True)
class Source:
    """A folder that can be quantized.

    Attributes:
        folder: Its path.
        config: Its `config.json`.
        shards: Weight files, in the order of their names.
        is_indexed: Whether an index says which shard holds which tensor.
    """

    folder: Path
    config: dict[str, Any]
    shards: tuple[Path, ...]
    is_indexed: bool

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weight files."""
        return sum(shard.stat().st_size for shard in self.shards)


def is_rounded(tensor_name: str) -> bool:
    """Whether a tensor is a projection's weight; embeddings, head and norms are left alone."""
    return _PROJECTION.fullmatch(tensor_name) is not None


def open_source(folder: Path) -> Source:
    """Read a model folder, without the weights themselves.

    Raises:
        SourceNotFound: It is no folder.
        ConfigUnreadable: `config.json` is missing or damaged.
        UnsupportedArchitecture: The model is not Llama-like.
        AlreadyQuantized: It is quantized.
        WeightsMissing: Weight files are absent.
    """
    if not folder.is_dir():
        raise SourceNotFound(f"{folder} is not a folder.")
    config = read_config(folder)
    architectures = config.get("architectures") or []
    if not set(architectures) & set(_SUPPORTED):
        raise UnsupportedArchitecture(
            f"{folder / 'config.json'}: architectures is {architectures}; "
            f"one of {', '.join(_SUPPORTED)} is supported."
        )
    if "quantization_config" in config:
        raise AlreadyQuantized(
            f"{folder} is quantized already; quantize the full-precision folder it came from."
        )
    return Source(folder, config, weight_files(folder), (folder / INDEX_NAME).exists())


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a model folder.

    Raises:
        ConfigUnreadable: It is missing or is not a JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigUnreadable(f"{path} is missing; is {folder} a model folder?") from error
    except ValueError as error:
        raise ConfigUnreadable(f"{path} is not JSON: {error}.") from error
    if not isinstance(config, dict):
        raise ConfigUnreadable(f"{path} is not a JSON object.")
    return config


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a model folder, by name.

    Raises:
        WeightsMissing: There is none, or one that the index names is absent.
    """
    index = folder / INDEX_NAME
    if index.exists():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = sorted(path.name for path in folder.glob("*.safetensors"))
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise WeightsMissing(f"{index} names {', '.join(absent)}, absent in {folder}.")
    if not names:
        raise WeightsMissing(f"{folder} holds no *.safetensors file; other formats are not read.")
    return tuple(folder / name for name in names)
