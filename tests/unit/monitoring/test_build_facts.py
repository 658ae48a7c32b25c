"""Facts of a build: their bounds, what differs, and the digest."""

import pytest

from penumbra.monitoring.build_facts import (
    MOST_CHARACTERS,
    MOST_FACTS,
    differences,
    digest,
    read_facts,
    short,
)


def test_only_facts_that_both_have_are_compared() -> None:
    known = {"kv_cache_dtype": "auto", "engine": "1", "device": "a"}
    told = {"kv_cache_dtype": "fp8", "engine": "1", "weights": "b"}
    assert differences(known, told) == {"kv_cache_dtype": ("auto", "fp8")}
    assert differences({}, told) == {}


def test_the_digest_follows_the_facts_and_not_their_order() -> None:
    assert digest({"a": "1", "b": "2"}) == digest({"b": "2", "a": "1"})
    assert digest({"a": "1"}) != digest({"a": "2"})
    assert len(digest({})) == 64


def test_facts_are_bounded() -> None:
    facts = read_facts({f"fact-{n:03}": "x" * 1000 for n in range(500)})
    assert len(facts) == MOST_FACTS
    assert {len(text) for text in facts.values()} == {len("sha256:") + 64}
    assert short("y" * MOST_CHARACTERS) == "y" * MOST_CHARACTERS
    assert short("y" * 500) != short("z" * 500)


@pytest.mark.parametrize("told", [None, [], "x", {"a": 1}, {"a": None}, {"a": {"b": "c"}}])
def test_what_is_no_object_of_texts_is_refused(told: object) -> None:
    with pytest.raises(ValueError, match="wanted"):
        read_facts(told)
