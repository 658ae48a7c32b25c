"""Manifest of a model folder, `penumbra.json`, and digests of what the folder holds."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penumbra.serve.quantization.errors import ManifestInvalid, ManifestMismatch
from penumbra.serve.quantization.source import INDEX_NAME, read_config, weight_files

MANIFEST_NAME: Final = "penumbra.json"
SCHEMA_VERSION: Final = 1
_TOKENIZER_NAMES: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
)
_BITS: Final = {"bfloat16": 16, "float16": 16, "float32": 32}
_CHUNK_BYTES: Final = 1 << 20
_SHA256: Final = r"^[0-9a-f]{64}$"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class WeightFile(_Strict):
    """One file of weights.

    Attributes:
        sha256: Digest of its bytes, in hex.
        size_bytes: Its length.
    """

    sha256: str = Field(pattern=_SHA256)
    size_bytes: int = Field(ge=0)


class Manifest(_Strict):
    """Description of a model folder. Its fields are the format and change only with its version.

    Attributes:
        schema_version: Version of this format.
        scheme: A `Scheme` value, or the dtype of a folder that is not quantized.
        bits: Bits of the coarsest grid that weights are rounded to.
        group_size: In-features per scale; None where a scale covers a whole output channel.
        method: How weights are rounded: `none`, `rtn-minmax` or `rtn-mse`.
        weights: Every weight file by name.
        config_sha256: Digest of the canonical form of `config.json`.
        tokenizer_sha256: Digest over the tokenizer's files.
        chat_template_sha256: Digest of the chat template's text; of an empty text without one.
        source_sha256: Content digest of the source folder; None if it is not quantized.
        tools: Versions of the tools that made it, by name; no part of the fingerprint.
    """

    schema_version: Literal[1]
    scheme: str = Field(min_length=1)
    bits: int = Field(ge=1, le=32)
    group_size: int | None = Field(ge=1)
    method: str = Field(min_length=1)
    weights: dict[str, WeightFile] = Field(min_length=1)
    config_sha256: str = Field(pattern=_SHA256)
    tokenizer_sha256: str = Field(pattern=_SHA256)
    chat_template_sha256: str = Field(pattern=_SHA256)
    source_sha256: str | None = Field(pattern=_SHA256)
    tools: dict[str, str]


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest; a full-precision folder without one is described from its files.

    Raises:
        ManifestInvalid: `penumbra.json` is damaged, of another version, or missing in a folder that
            is quantized.
        ConfigUnreadable: `config.json` is missing or damaged.
        WeightsMissing: Weight files are absent.
    """
    path = folder / MANIFEST_NAME
    if not path.exists():
        config = read_config(folder)
        if "quantization_config" in config:
            raise ManifestInvalid(f"{path} is missing, though {folder} is quantized.")
        scheme = str(config.get("torch_dtype") or config.get("dtype") or "float32")
        return describe(folder, scheme=scheme, bits=_BITS.get(scheme, 32))
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ManifestInvalid(f"{path}: {where}: {first['msg']}.") from error


def describe(  # noqa: PLR0913 - each is a field of the manifest
    folder: Path,
    *,
    scheme: str,
    bits: int,
    group_size: int | None = None,
    method: str = "none",
    source_sha256: str | None = None,
    tools: Mapping[str, str] | None = None,
) -> Manifest:
    """Describe a folder from its files; reads every weight once."""
    files = (*weight_files(folder), *folder.glob(INDEX_NAME))
    return Manifest(
        schema_version=SCHEMA_VERSION,
        scheme=scheme,
        bits=bits,
        group_size=group_size,
        method=method,
        weights={
            file.name: WeightFile(sha256=file_sha256(file), size_bytes=file.stat().st_size)
            for file in files
        },
        config_sha256=_digest(read_config(folder)),
        tokenizer_sha256=_digest(
            {
                name: file_sha256(folder / name)
                for name in _TOKENIZER_NAMES
                if (folder / name).exists()
            }
        ),
        chat_template_sha256=hashlib.sha256(_chat_template(folder).encode()).hexdigest(),
        source_sha256=source_sha256,
        tools=dict(tools or {}),
    )


def content_digests(folder: Path) -> dict[str, str]:
    """Digests of what is in a folder now, by part; no manifest is asked. Reads every weight once.

    Returns:
        `weights`, `config`, `tokenizer`, `chat_template` -> SHA-256 in hex.

    Raises:
        ConfigUnreadable: `config.json` is missing or damaged.
        WeightsMissing: Weight files are absent.
        OSError: A file cannot be read.
    """
    found = describe(folder, scheme="any", bits=32)
    return {
        "weights": _digest({name: file.sha256 for name, file in found.weights.items()}),
        "config": found.config_sha256,
        "tokenizer": found.tokenizer_sha256,
        "chat_template": found.chat_template_sha256,
    }


def content_sha256(manifest: Manifest) -> str:
    """Digest of a folder's content, independent of the engine and of the tools that made it."""
    return _digest(manifest.model_dump(mode="json", exclude={"tools"}))


def verify(folder: Path, manifest: Manifest) -> None:
    """Check that a folder holds what a manifest describes.

    Raises:
        ManifestMismatch: A file differs, is absent, or is not described.
        ConfigUnreadable: `config.json` is missing or damaged.
        WeightsMissing: Weight files are absent.
    """
    found = describe(
        folder,
        scheme=manifest.scheme,
        bits=manifest.bits,
        group_size=manifest.group_size,
        method=manifest.method,
        source_sha256=manifest.source_sha256,
        tools=manifest.tools,
    )
    for field in Manifest.model_fields:
        if getattr(found, field) != getattr(manifest, field):
            raise ManifestMismatch(
                f"{folder}: {field} is not what {MANIFEST_NAME} says; "
                "the folder was changed after it was made, so make it again."
            )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `penumbra.json`."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _chat_template(folder: Path) -> str:
    """The template as the tokenizer loads it: its own file wins over the configuration's entry."""
    own = folder / "chat_template.jinja"
    if own.exists():
        return own.read_text(encoding="utf-8")
    path = folder / "tokenizer_config.json"
    if not path.exists():
        return ""
    template = json.loads(path.read_text(encoding="utf-8")).get("chat_template", "")
    return template if isinstance(template, str) else json.dumps(template, sort_keys=True)


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
