import pytest
import yaml

from penumbra.deployments.config import strict_yaml
from penumbra.deployments.errors import ConfigInvalid


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


MERGES = [
    # The derived mapping's own keys win, wherever the merge key stands.
    ("a: &a {a: 1, b: 2}\nd: {<<: *a, b: 3}\n", {"a": 1, "b": 3}),
    ("a: &a {a: 1, b: 2}\nd: {b: 3, <<: *a}\n", {"a": 1, "b": 3}),
    ("a: &a\n  a: 1\n  b: 2\nd:\n  <<: *a\n  b: 3\n", {"a": 1, "b": 3}),
    ("a: &a\n  a: 1\n  b: 2\nd:\n  b: 3\n  <<: *a\n", {"a": 1, "b": 3}),
    # A base that is merged itself keeps its own overrides, with short keys and with long ones.
    ("a: &a {a: 1}\nb: &b {<<: *a, a: 2}\nd: {<<: *b, c: 3}\n", {"a": 2, "c": 3}),
    ("a: &a {long: 1}\nb: &b {<<: *a, long: 2}\nd: {<<: *b, c: 3}\n", {"long": 2, "c": 3}),
    ("a: &a {a: 1}\nb: &b\n  a: 2\n  <<: *a\nd: {c: {<<: *b}}\n", {"c": {"a": 2}}),
    # Of several bases the first one wins.
    (
        "a: &a {long: 1, a: 1}\nb: &b {long: 2, b: 2}\nd: {<<: [*a, *b], b: 3}\n",
        {"long": 1, "a": 1, "b": 3},
    ),
    ("a: &a {a: 1}\nb: &b {<<: *a, a: 2}\nd: {<<: [*b, *a]}\n", {"a": 2}),
]


@pytest.mark.parametrize(("text", "expected"), MERGES)
def test_merge_keeps_the_overrides(text: str, expected: object) -> None:
    assert strict_yaml.parse(text)["d"] == expected


def test_a_pyyaml_that_merges_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def flatten_as_6_0_4(loader: yaml.SafeLoader, node: yaml.MappingNode) -> None:
        merged, own = [], []
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:merge":
                own.append((key, value))
                continue
            for base in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                loader.flatten_mapping(base)
                taken = {id(key.value) for key, _ in merged}
                for pair in base.value:
                    if id(pair[0].value) not in taken:
                        taken.add(id(pair[0].value))
                        merged.append(pair)
        node.value = merged + own

    monkeypatch.setattr(yaml.SafeLoader, "flatten_mapping", flatten_as_6_0_4)
    strict_yaml.require_right_merges.cache_clear()
    with pytest.raises(ConfigInvalid, match=r"^PyYAML .*merge keys .* lose overrides"):
        strict_yaml.parse("a: 1")


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
def test_a_document_beyond_json_is_refused_with_its_place(text: str, expected: str) -> None:
    with pytest.raises(yaml.MarkedYAMLError, match=expected) as caught:
        strict_yaml.parse(text)
    assert caught.value.problem_mark is not None


def test_a_date_stays_text() -> None:
    assert strict_yaml.parse("a: 2026-01-01") == {"a": "2026-01-01"}
