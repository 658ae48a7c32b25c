"""Objects of a fold as bytes, and what such bytes cannot do."""

import os
import pickle
from collections import Counter
from typing import Any

import pytest

from penumbra.deployments.evidence import kept_objects
from penumbra.deployments.evidence.kept_objects import Unusable, dump, load, pack
from penumbra.monitoring.observations import SelfTest

KEY = b"a key"
PLACE = "penumbra.deployments.evidence.kept_objects"


class _Command:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


class _Function:
    def __reduce__(self) -> Any:
        return kept_objects.version, ()


def test_what_was_written_is_read() -> None:
    kept = {"a": Counter(x=2), "b": SelfTest(True, 0.1, "fine", 1.5), "c": frozenset({1})}
    assert load(pack(dump(kept), KEY), KEY, dict) == kept


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
        load(pack(dump(kept), KEY), KEY, object)


def named(name: str, module: str = PLACE) -> bytes:
    """A pickle that is one class, by its name."""
    parts = (b"\x8c" + bytes([len(each)]) + each.encode() for each in (module, name))
    return b"\x80\x04" + b"".join(parts) + b"\x93."


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (PLACE, "io.FileIO"),
        (PLACE, "pickle.Unpickler"),
        (PLACE, "metadata.operator.methodcaller"),
        ("penumbra.deployments.evidence.self_tests", "EvidenceClock"),  # imported there
        ("penumbra.deployments.metrics.discovery", "Path"),
    ],
)
def test_no_class_is_found_by_way_of_another_module(module: str, name: str) -> None:
    with pytest.raises(Unusable):
        load(pack(named(name, module), KEY), KEY, object)


def test_bytes_that_no_control_process_has_signed_are_not_read() -> None:
    with pytest.raises(Unusable, match="not signed"):
        load(pack(dump({}), b"another key"), KEY, dict)


@pytest.mark.parametrize("at", [0, 31, 32, 40, -1])
def test_damage_is_found(at: int) -> None:
    packed = bytearray(pack(dump({"some": list(range(100))}), KEY))
    packed[at] ^= 1
    with pytest.raises(Unusable):
        load(bytes(packed), KEY, dict)


@pytest.mark.parametrize("packed", [b"", b"x" * 31, pack(b"", KEY), pack(b"no pickle", KEY)])
def test_what_is_no_object_at_all_is_unusable(packed: bytes) -> None:
    with pytest.raises(Unusable):
        load(packed, KEY, dict)


def test_another_kind_of_object_is_unusable() -> None:
    with pytest.raises(Unusable, match="found list, wanted dict"):
        load(pack(dump([]), KEY), KEY, dict)


CLASS = '''
class Kept:
    """Words."""
    name: str
    def __init__(self):
        self.count = 0
'''


@pytest.mark.parametrize(
    ("changed", "is_same"),
    [
        (CLASS.replace("Words", "Other words") + "\n\ndef other(): ...\n", True),
        (CLASS.replace("self.count = 0", "self.count = 1"), True),
        (CLASS + "    def count_up(self):\n        return self.count\n", True),
        (CLASS + "    def take(self):\n        self.last = 1\n", False),
        (CLASS.replace("name: str", "name: int"), False),
        (CLASS.replace("Kept:", "Kept(Base):"), False),
        (CLASS.replace("count", "counts"), False),
    ],
)
def test_a_shape_is_the_fields_of_classes(changed: str, is_same: bool) -> None:
    before = kept_objects.shape_of({"module": CLASS})
    assert (kept_objects.shape_of({"module": changed}) == before) is is_same
