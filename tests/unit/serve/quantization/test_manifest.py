"""The manifest of a model folder, and the demo's preparation."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from penumbra.serve.demo import llama, train
from penumbra.serve.demo.prepare import BUILDS, VARIANTS, prepare
from penumbra.serve.demo.table import wilson
from penumbra.serve.quantization.convert import quantize_folder
from penumbra.serve.quantization.errors import ManifestInvalid, ManifestMismatch
from penumbra.serve.quantization.manifest import (
    MANIFEST_NAME,
    Manifest,
    content_sha256,
    describe,
    read_manifest,
    verify,
)
from penumbra.serve.quantization.schemes import Scheme

# Importing compressed-tensors runs a decorator that torch has deprecated; not ours to change.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    shape = llama.Shape(layers=1, hidden=128, intermediate=128, heads=4)
    llama.export(llama.Llama(shape, torch.Generator().manual_seed(1)), folder)
    train.write_checksums(folder)
    return folder


@pytest.fixture
def build(source: Path, tmp_path: Path) -> Path:
    quantize_folder(source, tmp_path / "build", Scheme.W4A16_INT4)
    return tmp_path / "build"


def test_read_manifest_describes_a_full_precision_folder_from_its_files(source: Path) -> None:
    manifest = read_manifest(source)
    assert (manifest.scheme, manifest.bits, manifest.method) == ("bfloat16", 16, "none")
    assert manifest.source_sha256 is None


def test_read_manifest_gives_back_what_was_written(source: Path, build: Path) -> None:
    manifest = read_manifest(build)
    assert (manifest.scheme, manifest.bits, manifest.group_size) == ("w4a16-int4", 4, 128)
    assert manifest.source_sha256 == content_sha256(read_manifest(source))
    assert set(manifest.tools) == {"compressed-tensors", "safetensors", "torch"}
    verify(build, manifest)


def test_quantizing_twice_gives_the_same_content(source: Path, build: Path, tmp_path: Path) -> None:
    again = quantize_folder(source, tmp_path / "again", Scheme.W4A16_INT4)
    assert content_sha256(again) == content_sha256(read_manifest(build))


@pytest.mark.parametrize("field", sorted(Manifest.model_fields))
def test_manifest_missing_field_is_named(build: Path, field: str) -> None:
    document = json.loads((build / MANIFEST_NAME).read_text())
    del document[field]
    (build / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(ManifestInvalid, match=field):
        read_manifest(build)


@pytest.mark.parametrize(
    "change", [{"schema_version": 2}, {"bits": "4"}, {"source_sha256": "x"}, {"surprise": 1}]
)
def test_manifest_wrong_value_is_refused(build: Path, change: dict[str, object]) -> None:
    document = json.loads((build / MANIFEST_NAME).read_text()) | change
    (build / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(ManifestInvalid, match=next(iter(change))):
        read_manifest(build)


def test_manifest_absent_in_a_quantized_folder_is_refused(build: Path) -> None:
    (build / MANIFEST_NAME).unlink()
    with pytest.raises(ManifestInvalid):
        read_manifest(build)


def test_manifest_is_frozen(build: Path) -> None:
    with pytest.raises(ValidationError):
        read_manifest(build).bits = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_verify_finds_a_changed_file(build: Path, name: str) -> None:
    manifest = read_manifest(build)
    changed = (build / name).read_bytes().replace(b"model", b"modle", 1)
    (build / name).write_bytes(changed)
    with pytest.raises(ManifestMismatch):
        verify(build, manifest)


def test_verify_finds_a_changed_chat_template(build: Path) -> None:
    manifest = read_manifest(build)
    (build / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(ManifestMismatch, match="chat_template"):
        verify(build, manifest)


def test_the_content_digest_follows_the_content_and_not_the_tools(source: Path) -> None:
    manifest = read_manifest(source)
    same = describe(source, scheme="bfloat16", bits=16, tools={"torch": "9"})
    other = manifest.model_copy(update={"chat_template_sha256": "1" * 64})
    assert content_sha256(same) == content_sha256(manifest)
    assert content_sha256(other) != content_sha256(manifest)


def test_prepare_makes_every_variant_once(source: Path, tmp_path: Path) -> None:
    first: list[str] = []
    second: list[str] = []
    prepare(tmp_path / "variants", first.append, source)
    prepare(tmp_path / "variants", second.append, source)
    assert {path.name for path in (tmp_path / "variants").iterdir()} == set(VARIANTS)
    assert not any("up to date" in line for line in first)
    assert second == [f"{name}: up to date" for name in VARIANTS]


@pytest.mark.parametrize("name", VARIANTS)
def test_prepare_remakes_a_damaged_variant(source: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "variants"
    prepare(folder, lambda _line: None, source)
    (folder / name / "tokenizer.json").write_text("{}")
    lines: list[str] = []
    prepare(folder, lines.append, source)
    assert next(line for line in lines if "up to date" not in line).startswith(f"{name}: ")
    verify(folder / name, read_manifest(folder / name))


def test_prepare_refuses_a_model_that_is_not_the_committed_one(
    source: Path, tmp_path: Path
) -> None:
    with (source / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ManifestMismatch, match=r"model\.safetensors"):
        prepare(tmp_path / "variants", lambda _line: None, source)


def test_demo_has_exactly_one_build_that_is_expected_to_fail() -> None:
    assert [name for name, made in BUILDS.items() if "experimental" in made.scheme] == ["int2"]


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 0, 0.0, 1.0), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (95, 100, 0.8882, 0.9785)],
)
def test_wilson_matches_published_values(
    successes: int, trials: int, low: float, high: float
) -> None:
    assert wilson(successes, trials) == (
        pytest.approx(low, abs=1e-4),
        pytest.approx(high, abs=1e-4),
    )
