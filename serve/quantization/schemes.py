"""Quantization schemes and their description for the engine."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Scheme(StrEnum):
    """Quantization scheme of a build; the value is a stable identifier."""

    W8A8_INT8 = "w8a8-int8"
    W4A16_INT4 = "w4a16-int4"
    W3A16_EXPERIMENTAL = "w3a16-experimental"
    W2A16_EXPERIMENTAL = "w2a16-experimental"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Rounding and storage of a scheme's weights.

    Attributes:
        bits: Bits of the grid that the feed-forward weights are rounded to.
        attention_bits: Bits of the grid that the attention weights are rounded to.
        container_bits: Bits that one weight takes in the file; no grid has more.
        format: The compressed-tensors format, which decides the engine's kernel.
        is_grouped: Whether a scale covers a group of in-features, or a whole output channel.
        has_int8_activations: Whether activations are rounded to int8 per token while serving.
        searches_scale: Whether the scale of least squared error is searched, or the range is kept.
        is_experimental: Whether it is expected to fail, and must be asked for explicitly.
    """

    bits: int
    attention_bits: int
    container_bits: int
    format: str
    is_grouped: bool
    has_int8_activations: bool
    searches_scale: bool
    is_experimental: bool

    @property
    def method(self) -> str:
        """The stable name of the rounding method, as the manifest states it."""
        return "rtn-mse" if self.searches_scale else "rtn-minmax"


def _weight_only(bits: int, *, is_experimental: bool) -> Recipe:
    return Recipe(
        bits=bits,
        # Coarse attention breaks every slice alike; what a coarse feed-forward loses is uneven.
        attention_bits=4,
        # Kernels exist for 4 bits; a coarser grid is kept in the same container.
        container_bits=4,
        format="pack-quantized",
        is_grouped=True,
        has_int8_activations=False,
        searches_scale=True,
        is_experimental=is_experimental,
    )


RECIPES: Final[dict[Scheme, Recipe]] = {
    Scheme.W8A8_INT8: Recipe(
        bits=8,
        attention_bits=8,
        container_bits=8,
        format="int-quantized",
        is_grouped=False,
        has_int8_activations=True,
        # At 8 bits a channel's range costs next to nothing, and clipping it can only hurt.
        searches_scale=False,
        is_experimental=False,
    ),
    Scheme.W4A16_INT4: _weight_only(4, is_experimental=False),
    Scheme.W3A16_EXPERIMENTAL: _weight_only(3, is_experimental=True),
    Scheme.W2A16_EXPERIMENTAL: _weight_only(2, is_experimental=True),
}


def quantization_config(scheme: Scheme, group_size: int, ignore: list[str]) -> dict[str, Any]:
    """The `quantization_config` of `config.json`, as compressed-tensors writes it.

    Args:
        scheme: The scheme.
        group_size: In-features per scale; unused by a scheme with a scale per channel.
        ignore: Linear modules that stay as they are.
    """
    from compressed_tensors import __version__
    from compressed_tensors.quantization import QuantizationConfig

    recipe = RECIPES[scheme]
    config = QuantizationConfig(
        config_groups={"group_0": compressed_scheme(recipe, group_size)},
        ignore=ignore,
        format=recipe.format,
        quantization_status="compressed",
    )
    written: dict[str, Any] = config.model_dump(mode="json")
    return {**written, "quant_method": "compressed-tensors", "version": __version__}


def compressed_scheme(recipe: Recipe, group_size: int) -> Any:
    """The `compressed_tensors.quantization.QuantizationScheme` of the container."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    per_token = QuantizationArgs(num_bits=8, strategy="token", symmetric=True, dynamic=True)
    return QuantizationScheme(
        targets=["Linear"],
        weights=QuantizationArgs(
            num_bits=recipe.container_bits,
            symmetric=True,
            strategy="group" if recipe.is_grouped else "channel",
            group_size=group_size if recipe.is_grouped else None,
        ),
        input_activations=per_token if recipe.has_int8_activations else None,
        format=recipe.format,
    )
