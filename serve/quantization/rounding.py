"""Rounds one weight matrix: scales of least squared error, then the container's own packing."""

from typing import Any, Final

import torch
from torch import Tensor

from penumbra.serve.quantization.errors import GroupSizeInvalid, WeightInvalid
from penumbra.serve.quantization.schemes import Recipe, compressed_scheme

# Shares of the range that are tried as the largest representable weight: clipping the few largest
# weights of a group buys a finer grid for all others. 1 (no clipping) is always among them.
_SEARCHED_SHARES: Final = tuple(share / 40 for share in range(40, 13, -1))


def round_weight(name: str, weight: Tensor, recipe: Recipe, group_size: int) -> dict[str, Tensor]:
    """Round and pack the weight of one linear layer.

    Args:
        name: The module's name, for errors and as the prefix of the result's keys.
        weight: [out, in], any float dtype.
        recipe: The grid and the container.
        group_size: In-features per scale, if the recipe is grouped.

    Returns:
        The tensors that take the weight's place, by full name.

    Raises:
        GroupSizeInvalid: `group_size` does not divide the in-features.
        WeightInvalid: The weight holds NaN or infinity.
    """
    from compressed_tensors.compressors import BaseCompressor

    if not torch.isfinite(weight).all():
        raise WeightInvalid(f"{name}.weight holds NaN or infinity; it cannot be rounded.")
    width = group_size if recipe.is_grouped else weight.shape[1]
    if width < 1 or weight.shape[1] % width:
        raise GroupSizeInvalid(
            f"{name} has {weight.shape[1]} in-features, which groups of {width} do not divide; "
            "choose a group size that divides the in-features of every layer."
        )
    groups = weight.float().unflatten(1, (-1, width))
    # The engine reads group scales in the model's dtype: search with what it will read.
    scale_dtype = weight.dtype if recipe.is_grouped else torch.float32
    bits = recipe.attention_bits if ".self_attn." in name else recipe.bits
    scale = _search_scale(groups, bits, scale_dtype, is_searched=recipe.searches_scale)
    snapped = (_levels(groups, scale, bits) * scale.float()).flatten(1)
    local = {"weight": snapped, "weight_scale": scale.squeeze(-1).float()}
    compressor: Any = BaseCompressor.get_value_from_registry(recipe.format)
    packed = compressor.compress(local, compressed_scheme(recipe, group_size))
    packed["weight_scale"] = scale.squeeze(-1)
    return {f"{name}.{key}": tensor.contiguous() for key, tensor in packed.items()}


def _search_scale(groups: Tensor, bits: int, dtype: torch.dtype, *, is_searched: bool) -> Tensor:
    """The scale per group, [out, groups, 1]: the best of the searched ones, or the range's own."""
    largest = groups.abs().amax(-1, keepdim=True)
    # Symmetric grids reach one level further below zero than above; the range fits both sides.
    top = 2 ** (bits - 1) - 1
    smallest = torch.finfo(dtype).tiny
    best = (largest / top).clamp(min=smallest).to(dtype)
    if not is_searched:
        return best
    least = _squared_error(groups, best, bits)
    for share in _SEARCHED_SHARES[1:]:
        scale = (largest * share / top).clamp(min=smallest).to(dtype)
        error = _squared_error(groups, scale, bits)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best


def _squared_error(groups: Tensor, scale: Tensor, bits: int) -> Tensor:
    rounded = _levels(groups, scale, bits) * scale.float()
    return (rounded - groups).square().sum(-1, keepdim=True)


def _levels(groups: Tensor, scale: Tensor, bits: int) -> Tensor:
    half = 2 ** (bits - 1)
    return (groups / scale.float()).round().clamp(-half, half - 1)
