"""Selection of the requests that are mirrored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.observations import Run
from penumbra.router.flags.routing_table import ModelSnapshot, Variant, Watch
from penumbra.router.mirror.selection import (
    MirrorSelection,
    comparable,
    compile_mirror,
    hash64,
    session_hash,
)

VARIANTS = {name: Variant(url=f"http://{name}.test") for name in ("full", "int8", "int4")}
INT8, INT4 = Run("demo", "int8", "run-a"), Run("demo", "int4", "run-b")


def mirror(*watches: Watch) -> MirrorSelection:
    found = compile_mirror("demo", _model(*watches))
    assert found is not None
    return found


def _model(*watches: Watch) -> ModelSnapshot:
    return ModelSnapshot(baseline="full", variants=VARIANTS, watches=watches)


def _watch(candidate: str = "int8", run: str = "run-a", **more: object) -> Watch:
    return Watch.model_validate({"candidate": candidate, "run": run, "mirror": 1.0, **more})


def _share(found: MirrorSelection, slice_name: str = "other", count: int = 20_000) -> float:
    ids = (b"req-%d" % number for number in range(count))
    return sum(bool(found.chosen(each, slice_name, "full")) for each in ids) / count


@pytest.mark.parametrize("watches", [(), (_watch(mirror=0.0),)])
def test_a_model_that_mirrors_nothing_has_no_selection(watches: tuple[Watch, ...]) -> None:
    assert compile_mirror("demo", _model(*watches)) is None


def test_all_requests_are_mirrored_at_rate_one() -> None:
    assert _share(mirror(_watch())) == 1.0


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_the_rate_is_the_share_that_is_mirrored(rate: float) -> None:
    # Five standard deviations of a binomial share.
    assert abs(_share(mirror(_watch(mirror=rate))) - rate) < 5 * (rate * (1 - rate) / 20_000) ** 0.5


def test_a_slice_may_have_a_rate_of_its_own() -> None:
    found = mirror(_watch(mirror=0.0, mirror_slices={"greek": 1.0}))
    assert (_share(found, "greek"), _share(found, "other")) == (1.0, 0.0)
    silent = mirror(_watch(mirror=1.0, mirror_slices={"greek": 0.0}))
    assert (_share(silent, "greek"), _share(silent, "other")) == (0.0, 1.0)


@given(st.binary(min_size=1, max_size=128), st.floats(0.01, 1.0))
def test_every_replica_decides_alike_and_a_higher_rate_loses_no_request(
    request_id: bytes, rate: float
) -> None:
    lower, again = mirror(_watch(mirror=rate)), mirror(_watch(mirror=rate))
    higher = mirror(_watch(mirror=min(1.0, 2 * rate)))
    chosen = lower.chosen(request_id, "other", "full")
    assert chosen == again.chosen(request_id, "other", "full")
    assert set(chosen) <= set(higher.chosen(request_id, "other", "full"))


def test_another_run_chooses_other_requests() -> None:
    first, second = mirror(_watch(mirror=0.5)), mirror(_watch(run="run-z", mirror=0.5))
    ids = [b"req-%d" % number for number in range(4_000)]
    both = sum(
        bool(first.chosen(each, "other", "full")) == bool(second.chosen(each, "other", "full"))
        for each in ids
    )
    assert abs(both / 4_000 - 0.5) < 0.05


def test_a_candidates_answer_is_compared_with_the_baseline_only() -> None:
    found = mirror(_watch(), _watch("int4", "run-b"))
    assert found.chosen(b"r", "other", "full") == (INT8, INT4)
    assert found.chosen(b"r", "other", "int8") == (INT8,)
    assert found.chosen(b"r", "other", "int4") == (INT4,)


def test_an_answer_that_another_variant_gave_in_the_end_is_filtered() -> None:
    assert comparable((INT8, INT4), "full", "full") == (INT8, INT4)
    assert comparable((INT8, INT4), "full", "int4") == (INT4,)
    assert comparable((INT8,), "full", "int4") == ()


def test_hashes_are_unsigned_and_stable() -> None:
    assert hash64(b"penumbra") == 17443378196988078071
    assert all(0 <= hash64(b"%d" % number) < 2**64 for number in range(1_000))


def test_a_session_belongs_to_its_tenant() -> None:
    assert session_hash("acme", None) == session_hash("acme", b"") == 0
    assert session_hash("acme", b"s1") == session_hash("acme", b"s1") != 0
    assert session_hash("acme", b"s1") != session_hash("globex", b"s1")
