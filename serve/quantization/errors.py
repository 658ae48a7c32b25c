"""Errors of quantizing, each with a stable `code`.

QuantizationError
├── SourceNotFound            the source is not a folder
├── ConfigUnreadable          config.json is missing or damaged
├── UnsupportedArchitecture   the model is not Llama-like
├── AlreadyQuantized          the source carries a quantization_config
├── WeightsMissing            no safetensors, or a shard that the index names is absent
├── GroupSizeInvalid          the group does not divide a layer's in-features
├── WeightInvalid             a weight holds NaN or infinity
├── TargetExists              the target is there already, or lies inside the source
├── NotEnoughDisk             the target's disk is too full
├── ExperimentalScheme        an experimental scheme was not asked for explicitly
├── ManifestInvalid           penumbra.json is missing or damaged
└── ManifestMismatch          the files are not the ones that penumbra.json describes
"""

from typing import ClassVar


class QuantizationError(Exception):
    """Base of all errors of this package.

    Args:
        message: For the operator: what was found, and what would be right.
    """

    code: ClassVar[str] = "quantization_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SourceNotFound(QuantizationError):
    """The source is not a folder."""

    code: ClassVar[str] = "source_not_found"


class ConfigUnreadable(QuantizationError):
    """`config.json` is missing or is not a JSON object."""

    code: ClassVar[str] = "config_unreadable"


class UnsupportedArchitecture(QuantizationError):
    """The model is not one whose projections are known by name."""

    code: ClassVar[str] = "unsupported_architecture"


class AlreadyQuantized(QuantizationError):
    """The source carries a `quantization_config`; quantizing twice only loses more."""

    code: ClassVar[str] = "already_quantized"


class WeightsMissing(QuantizationError):
    """No safetensors file, or one that the index names is absent."""

    code: ClassVar[str] = "weights_missing"


class GroupSizeInvalid(QuantizationError):
    """The group size does not divide a layer's in-features."""

    code: ClassVar[str] = "group_size_invalid"


class WeightInvalid(QuantizationError):
    """A weight holds NaN or infinity."""

    code: ClassVar[str] = "weight_invalid"


class TargetExists(QuantizationError):
    """The target is there already, or lies inside the source."""

    code: ClassVar[str] = "target_exists"


class NotEnoughDisk(QuantizationError):
    """The disk of the target is too full for the result."""

    code: ClassVar[str] = "not_enough_disk"


class ExperimentalScheme(QuantizationError):
    """An experimental scheme was not asked for explicitly."""

    code: ClassVar[str] = "experimental_scheme"


class ManifestInvalid(QuantizationError):
    """`penumbra.json` is missing or is not a manifest of a known version."""

    code: ClassVar[str] = "manifest_invalid"


class ManifestMismatch(QuantizationError):
    """The files in a folder are not the ones that its manifest describes."""

    code: ClassVar[str] = "manifest_mismatch"
