"""Objects of a fold as bytes, and what such bytes cannot do."""

import os
import pickle
from collections import Counter
from typing import Any

import pytest

from penumbra.deployments.evidence import kept_objects
from penumbra.deployments.evidence.kept_objects import Unusable, classes_in, dump, load, pack
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.rollouts.spec import Calibrate, Guardrail
from penumbra.monitoring.observations import (
    Arm,
    Counts,
    Pair,
    Run,
    RunReport,
    SelfTest,
    Signal,
)
from tests.support.rollouts import pair, rollout_spec

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


def rich_evidence() -> RunEvidence:
    """Evidence with something in each of its parts."""
    calibrated = Guardrail(
        signal=Signal.DISPLACEMENT, tolerance=Calibrate(calibrate=100), action="rollback", share=0.3
    )
    others = (
        (Signal.HARM, 0.05, "rollback", 0.3),
        (Signal.DECODE_GAP, 0.01, "rollback", 0.2),
        (Signal.FAILURE, 0.01, "rollback", 0.2),
        (Signal.TTFT, 0.2, "hold", None),
    )
    rails = [Guardrail(signal=a, tolerance=b, action=c, share=d) for a, b, c, d in others]
    spec = rollout_spec(guardrails=(calibrated, *rails), stages=("shadow", 10.0, 50.0, 100.0))
    found = RunEvidence(spec, "run-1", ("other", "json"))
    for first in range(0, 1500, 50):
        some = [_pair(number) for number in range(first, first + 50)]
        aa = [
            pair(100_000 + number, 0.0, arm=Arm.BASELINE, harm=0)
            for number in range(first, first + 25)
        ]
        counts = tuple(Counts("other", signal, 5, 1) for signal in (Signal.FAILURE, Signal.TTFT))
        tests = (SelfTest(True, 0.1, "fine", 1.5),)
        run = Run("demo", "int8", "run-1")
        found.fold("c", RunReport(run, (*some, *aa), counts, self_tests=tests), "p")
        found.findings()
    return found


def _pair(number: int) -> Pair:
    return pair(
        number,
        0.2 if number % 7 else 0.01,
        slice=("other", "json")[number % 2],
        answered_by=("full", "int8")[number // 2 % 2],
        harm=int(number % 50 == 0),
        decode_gap=0.001,
        tokens=50,
        script="latin",
        prompt_tokens=100,
        session=number,
        first_ratio=1.0,
    )


def test_the_shape_is_of_the_modules_that_evidence_is_made_of() -> None:
    """One that is missing would let a base be read whose objects lack a field."""
    found = classes_in(pack(dump(rich_evidence()), KEY), KEY)
    ours = {module for module, _ in found if module.startswith("penumbra.")}
    assert ours == set(kept_objects.EVIDENCE_MODULES)


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
