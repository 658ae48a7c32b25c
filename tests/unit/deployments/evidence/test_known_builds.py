"""The builds of a run: which reports say that one was exchanged, and what they name."""

from penumbra.deployments.evidence.known_builds import KnownBuilds
from penumbra.monitoring.build_facts import digest
from penumbra.monitoring.observations import Run, RunReport

RUN = Run("demo", "int8", "run-1")
BUILD = {"weights": "w1", "kv_cache_dtype": "auto", "engine": "1"}


def told(variant: str = "int8", **facts: str) -> RunReport:
    return RunReport(RUN, fingerprints={variant: digest(facts)}, builds={variant: facts})


def test_the_same_build_told_again_is_no_change() -> None:
    builds = KnownBuilds()
    assert [builds.change(told(**BUILD)) for _ in range(3)] == [None] * 3
    assert builds.fingerprints == {"int8": digest(BUILD)}


def test_a_change_names_each_fact_with_both_values() -> None:
    builds = KnownBuilds()
    builds.change(told(**BUILD))
    change = builds.change(told(**BUILD | {"kv_cache_dtype": "fp8", "weights": "w2"}))
    assert change == "int8 is another build: kv_cache_dtype fp8, was auto, weights w2, was w1"


def test_a_fact_that_was_not_told_this_time_changes_nothing() -> None:
    builds = KnownBuilds()
    builds.change(told(**BUILD))
    fewer = {name: text for name, text in BUILD.items() if name != "engine"}
    assert builds.change(told(**fewer)) is None
    assert builds.facts == {"int8": BUILD}
    assert builds.change(told(**BUILD | {"engine": "2"})) is not None


def test_a_fact_that_is_told_later_is_added() -> None:
    builds = KnownBuilds()
    builds.change(told(engine="1"))
    assert builds.change(told(**BUILD)) is None
    assert builds.fingerprints == {"int8": digest(BUILD)}


def test_digests_without_facts_are_compared_with_each_other() -> None:
    builds = KnownBuilds()
    assert builds.change(RunReport(RUN, fingerprints={"int8": "a" * 64})) is None
    assert builds.change(RunReport(RUN, fingerprints={"int8": "b" * 64})) == (
        f"int8 is {'b' * 16} now, was {'a' * 16}"
    )


def test_an_upgrade_of_the_comparators_one_by_one_is_no_other_build() -> None:
    builds = KnownBuilds()
    old = RunReport(RUN, fingerprints={"int8": "a" * 64})
    assert [builds.change(report) for report in (old, told(**BUILD), old, told(**BUILD))] == (
        [None] * 4
    )
    assert builds.fingerprints == {"int8": digest(BUILD)}
