"""Quantizing: what a build holds, how far it is from its source, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from jinja2 import Environment
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from typer.testing import CliRunner

from penumbra.serve.cli.quantize import quantize
from penumbra.serve.demo import llama, tokens
from penumbra.serve.quantization import convert
from penumbra.serve.quantization.convert import quantize_folder
from penumbra.serve.quantization.errors import (
    AlreadyQuantized,
    ConfigUnreadable,
    ExperimentalScheme,
    GroupSizeInvalid,
    NotEnoughDisk,
    QuantizationError,
    SourceNotFound,
    TargetExists,
    UnsupportedArchitecture,
    WeightInvalid,
    WeightsMissing,
)
from penumbra.serve.quantization.manifest import file_sha256, read_manifest
from penumbra.serve.quantization.rounding import round_weight
from penumbra.serve.quantization.schemes import RECIPES, Scheme

# Importing compressed-tensors runs a decorator that torch has deprecated; not ours to change.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

SHAPE = llama.Shape(layers=2, hidden=128, intermediate=256, heads=4)
PROJECTIONS = 7 * SHAPE.layers


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "full"
    llama.export(llama.Llama(SHAPE, torch.Generator().manual_seed(1)), folder)
    return folder


def unpack(packed: torch.Tensor, bits: int = 4) -> torch.Tensor:
    """The container's levels, from its published layout: low bits first, offset to unsigned."""
    shifts = torch.arange(0, 32, bits)
    fields = (packed.unsqueeze(-1) >> shifts) & (2**bits - 1)
    return fields.flatten(1) - 2 ** (bits - 1)


def rebuilt(tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    scale = tensors[f"{name}.weight_scale"].float()
    if f"{name}.weight" in tensors:
        return tensors[f"{name}.weight"].float() * scale
    levels = unpack(tensors[f"{name}.weight_packed"]).float()
    return (levels.unflatten(1, (scale.shape[1], -1)) * scale.unsqueeze(-1)).flatten(1)


@pytest.mark.parametrize("scheme", Scheme)
def test_quantize_folder_replaces_projections_and_leaves_the_rest(
    source: Path, tmp_path: Path, scheme: Scheme
) -> None:
    quantize_folder(source, tmp_path / "out", scheme, allow_experimental=True)
    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    kept = {name for name in before if "_proj" not in name}
    assert sum(name.endswith("weight_scale") for name in after) == PROJECTIONS
    assert all(torch.equal(before[name], after[name]) for name in kept)


@pytest.mark.parametrize(
    ("scheme", "largest_error"),
    [
        (Scheme.W8A8_INT8, 0.01),
        (Scheme.W4A16_INT4, 0.14),
        (Scheme.W3A16_EXPERIMENTAL, 0.28),
        (Scheme.W2A16_EXPERIMENTAL, 0.6),
    ],
)
def test_quantize_folder_error_of_the_stored_weights_is_bounded(
    source: Path, tmp_path: Path, scheme: Scheme, largest_error: float
) -> None:
    quantize_folder(source, tmp_path / "out", scheme, allow_experimental=True)
    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    weight = before[f"{name}.weight"].float()
    error = (rebuilt(after, name) - weight).norm() / weight.norm()
    assert largest_error / 4 < error < largest_error


@pytest.mark.parametrize(
    ("scheme", "levels"), [(Scheme.W3A16_EXPERIMENTAL, 8), (Scheme.W2A16_EXPERIMENTAL, 4)]
)
def test_quantize_folder_coarse_grid_uses_only_its_levels_of_the_container(
    source: Path, tmp_path: Path, scheme: Scheme, levels: int
) -> None:
    quantize_folder(source, tmp_path / "out", scheme, allow_experimental=True)
    after = load_file(tmp_path / "out" / "model.safetensors")
    used = unpack(after["model.layers.0.mlp.up_proj.weight_packed"]).unique()
    assert used.min() >= -levels // 2
    assert used.max() <= levels // 2 - 1


def test_round_weight_searched_scale_is_never_worse_than_the_range() -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(2)).bfloat16()
    weight[0, 0] = 20.0
    recipe = RECIPES[Scheme.W4A16_INT4]
    rounded = rebuilt(round_weight("w", weight, recipe, 128), "w")
    groups = weight.float().unflatten(1, (-1, 128))
    scale = (groups.abs().amax(-1, keepdim=True) / 7).bfloat16().float()
    plain = ((groups / scale).round().clamp(-8, 7) * scale).flatten(1)
    assert (rounded - weight).square().sum() < (plain - weight).square().sum()


def test_round_weight_zeros_stay_zeros() -> None:
    packed = round_weight("w", torch.zeros(8, 128).bfloat16(), RECIPES[Scheme.W4A16_INT4], 128)
    assert rebuilt(packed, "w").abs().max() == 0


def test_quantize_folder_sharded_gives_the_same_tensors(source: Path, tmp_path: Path) -> None:
    quantize_folder(source, tmp_path / "whole", Scheme.W4A16_INT4)
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    placed = {}
    for number, part in enumerate((sorted(tensors)[:9], sorted(tensors)[9:]), 1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, source / shard)
        placed |= dict.fromkeys(part, shard)
    index = "model.safetensors.index.json"
    (source / index).write_text(json.dumps({"metadata": {}, "weight_map": placed}))

    quantize_folder(source, tmp_path / "sharded", Scheme.W4A16_INT4)

    whole = load_file(tmp_path / "whole" / "model.safetensors")
    written = json.loads((tmp_path / "sharded" / index).read_text())["weight_map"]
    assert set(written) == set(whole)
    for name, shard in written.items():
        assert torch.equal(load_file(tmp_path / "sharded" / shard)[name], whole[name])


def test_quantize_folder_config_names_the_format_and_spares_the_head(
    source: Path, tmp_path: Path
) -> None:
    quantize_folder(source, tmp_path / "out", Scheme.W4A16_INT4, group_size=64)
    written = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert written["quant_method"] == "compressed-tensors"
    assert written["format"] == "pack-quantized"
    assert written["ignore"] == ["lm_head"]
    assert written["config_groups"]["group_0"]["weights"]["group_size"] == 64


def test_quantize_folder_leaves_the_source_and_the_neighbourhood_alone(
    source: Path, tmp_path: Path
) -> None:
    before = {path.name: file_sha256(path) for path in source.iterdir()}
    quantize_folder(source, tmp_path / "out", Scheme.W8A8_INT8)
    assert {path.name: file_sha256(path) for path in source.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"full", "out"}


def test_quantize_folder_reports_every_tensor(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    quantize_folder(
        source,
        tmp_path / "out",
        Scheme.W8A8_INT8,
        on_tensor=lambda _name, done, total: seen.append((done, total)),
    )
    total = len(load_file(source / "model.safetensors"))
    assert seen == [(done, total) for done in range(1, total + 1)]


def _edit_config(source: Path, **changes: object) -> None:
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _remove_config(source: Path) -> None:
    (source / "config.json").unlink()


def _damage_config(source: Path) -> None:
    (source / "config.json").write_text("{")


def _mark_quantized(source: Path) -> None:
    _edit_config(source, quantization_config={})


def _change_architecture(source: Path) -> None:
    _edit_config(source, architectures=["BertModel"])


def _remove_weights(source: Path) -> None:
    (source / "model.safetensors").unlink()


def _name_absent_shard(source: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "model-00009.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))


def _poison_weight(source: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, source / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (_remove_config, ConfigUnreadable),
        (_damage_config, ConfigUnreadable),
        (_mark_quantized, AlreadyQuantized),
        (_change_architecture, UnsupportedArchitecture),
        (_remove_weights, WeightsMissing),
        (_name_absent_shard, WeightsMissing),
        (_poison_weight, WeightInvalid),
    ],
)
def test_quantize_folder_refuses_a_bad_source_and_leaves_nothing(
    source: Path, tmp_path: Path, spoil: object, error: type[QuantizationError]
) -> None:
    assert callable(spoil)
    spoil(source)
    with pytest.raises(error):
        quantize_folder(source, tmp_path / "out", Scheme.W4A16_INT4)
    assert {path.name for path in tmp_path.iterdir()} == {"full"}


def test_quantize_folder_refuses_an_absent_source(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound):
        quantize_folder(tmp_path / "absent", tmp_path / "out", Scheme.W8A8_INT8)


@pytest.mark.parametrize("group_size", [0, 96])
def test_quantize_folder_refuses_a_group_that_does_not_divide(
    source: Path, tmp_path: Path, group_size: int
) -> None:
    with pytest.raises(GroupSizeInvalid):
        quantize_folder(source, tmp_path / "out", Scheme.W4A16_INT4, group_size=group_size)
    assert not (tmp_path / "out").exists()


def test_quantize_folder_refuses_an_existing_target(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(TargetExists):
        quantize_folder(source, tmp_path / "out", Scheme.W8A8_INT8)


def test_quantize_folder_refuses_a_target_inside_the_source(source: Path) -> None:
    with pytest.raises(TargetExists):
        quantize_folder(source, source / "out", Scheme.W8A8_INT8)


def test_quantize_folder_refuses_an_experimental_scheme_unasked(
    source: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExperimentalScheme):
        quantize_folder(source, tmp_path / "out", Scheme.W2A16_EXPERIMENTAL)


def test_quantize_folder_refuses_a_full_disk(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "_SPARE_BYTES", 1 << 62)
    with pytest.raises(NotEnoughDisk):
        quantize_folder(source, tmp_path / "out", Scheme.W8A8_INT8)


def _run(*arguments: str) -> tuple[int, str]:
    import typer

    app = typer.Typer()
    app.command()(quantize)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_command_makes_a_build_and_says_what(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    status, output = _run(str(source), str(target), "--scheme", "w4a16-int4")
    assert status == 0
    assert "w4a16-int4" in output
    assert read_manifest(target).scheme == "w4a16-int4"


def test_command_refusal_names_the_code(source: Path, tmp_path: Path) -> None:
    status, output = _run(str(source), str(tmp_path / "o"), "--scheme", "w2a16-experimental")
    assert status == 2
    assert "[experimental_scheme]" in output


def test_tokenizer_and_chat_template_give_the_ids_of_training(source: Path) -> None:
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    template = json.loads((source / "tokenizer_config.json").read_text())["chat_template"]
    prompt = "Γράψε ελληνικά: \n\t\x00 é 漢 <b>"
    text = (
        Environment(autoescape=False)  # noqa: S701 - a chat template is no web page
        .from_string(template)
        .render(messages=[{"role": "user", "content": prompt}], add_generation_prompt=True)
    )
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == [tokens.BEGIN, *tokens.encode_turn(prompt)]
    assert tokenizer.decode(ids) == prompt
