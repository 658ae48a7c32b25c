import pytest
import yaml

from penumbra.deployments.config import strict_yaml


def test_a_key_that_is_written_out_overrides_a_merged_one() -> None:
    text = "a: &base {x: 1, y: 2}\nb: {<<: *base, y: 3}\nc: {<<: *base}\n"
    assert strict_yaml.parse(text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2},
    }


def test_merges_may_be_merged_again() -> None:
    text = "a: &a {x: 1}\nb: &b {<<: *a, x: 2, y: 2}\nc: {<<: *b, y: 3}\nd: {<<: [*a, *b]}\n"
    parsed = strict_yaml.parse(text)
    assert parsed["c"] == {"x": 2, "y": 3}
    assert parsed["d"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "a second time"),
        ("x: [{a: 1, a: 2}]", "a second time"),
        ('{"a": 1, a: 2}', "a second time"),
        ("&x a: 1\n*x : 2\n", "a second time"),
        ("1: 2", "put it in quotes"),
        ("yes: 2", "put it in quotes"),
        ("~: 2", "put it in quotes"),
        ("? [a]\n: 2", "put it in quotes"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
    ],
)
def test_what_is_no_json_object_is_refused_with_its_place(text: str, expected: str) -> None:
    with pytest.raises(yaml.MarkedYAMLError, match=expected) as caught:
        strict_yaml.parse(text)
    assert caught.value.problem_mark is not None


def test_a_date_stays_text() -> None:
    assert strict_yaml.parse("a: 2026-01-01") == {"a": "2026-01-01"}
