"""Versions of Penumbra and Python, for the `..._build_info` metrics."""

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

UNKNOWN = "unknown"
"""The version of a source tree that was not installed."""


@functools.cache
def build_labels() -> tuple[str, str]:
    """The values of the labels `version` and `python`."""
    try:
        own = version("penumbra-gateway")
    except PackageNotFoundError:
        own = UNKNOWN
    return own, platform.python_version()
