"""Objects of a fold as bytes, and what such bytes cannot do."""

import os
import pickle
from collections import Counter
from typing import Any

import pytest

from penumbra.deployments.evidence import kept_objects
from penumbra.deployments.evidence.kept_objects import Unusable, dump, load, pack
from penumbra.monitoring.observations import SelfTest


class _Command:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


class _Function:
    def __reduce__(self) -> Any:
        return kept_objects.version, ()


def test_what_was_written_is_read() -> None:
    kept = {"a": Counter(x=2), "b": SelfTest(True, 0.1, "fine", 1.5), "c": frozenset({1})}
    assert load(pack(dump(kept)), dict) == kept


@pytest.mark.parametrize(
    ("kept", "found"),
    [
        (_Command(), "posix.system"),
        (_Function(), "penumbra.deployments.evidence.kept_objects.version"),
        (print, "builtins.print"),
        (pickle.Pickler, "_pickle.Pickler"),
    ],
)
def test_bytes_can_make_no_other_objects_and_call_nothing(kept: object, found: str) -> None:
    with pytest.raises(Unusable, match=found):
        load(pack(dump(kept)), object)


@pytest.mark.parametrize("at", [0, 31, 32, 40, -1])
def test_damage_is_found(at: int) -> None:
    packed = bytearray(pack(dump({"some": list(range(100))})))
    packed[at] ^= 1
    with pytest.raises(Unusable):
        load(bytes(packed), dict)


@pytest.mark.parametrize("packed", [b"", b"x" * 31, pack(b""), pack(b"no pickle")])
def test_what_is_no_object_at_all_is_unusable(packed: bytes) -> None:
    with pytest.raises(Unusable):
        load(packed, dict)


def test_another_kind_of_object_is_unusable() -> None:
    with pytest.raises(Unusable, match="found list, wanted dict"):
        load(pack(dump([])), dict)
