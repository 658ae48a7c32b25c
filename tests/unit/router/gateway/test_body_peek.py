import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.errors import BadRequest
from penumbra.router.gateway.body_peek import read_at_once
from penumbra.router.gateway.large_body import read_request

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'"x"', "invalid_json"),
        (b'{"model": "m"} x', "invalid_json"),
        (b'{"model": "m", "x": NaN}', "invalid_json"),
        (b'{"model": "m", "x": ' + b"[" * 100_000, "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"model": "m", "messages": [{"content": "\xff"}]}', "invalid_json"),
        (b'{"model": ""}', "invalid_request"),
        (b'{"model": 7}', "invalid_request"),
        (b'{"model": "a", "model": "b"}', "duplicate_field"),
        (b'{"stream": true, "model": "a", "stream": false}', "duplicate_field"),
        (b'{"n": 1, "model": "a", "n": 2}', "duplicate_field"),
    ],
)
def test_bad_bodies_are_refused_with_a_code(body: bytes, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_request(body)
    assert caught.value.reported_code == code
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"{}", b'{"model": null, "messages": []}'])
def test_a_model_may_be_left_out(body: bytes) -> None:
    assert read_request(body).model is None


NAMES = st.sampled_from(["model", "user", "tools", "metadata", "x"])
SCHEMA: dict[str, Any] = {"properties": {"model": {}, "user": {}, "n": {}, "stream": {}}}


@pytest.mark.parametrize(
    ("more", "is_read"),
    [
        ({"tools": [SCHEMA, SCHEMA], "metadata": {"user": 1}}, True),
        ({"messages": [{"content": "\u0001 and", "x": SCHEMA, "y": SCHEMA}]}, True),
        ({"extra": [SCHEMA, SCHEMA]}, False),
    ],
    ids=["tools", "messages", "unknown"],
)
def test_names_inside_known_fields_need_no_scan(more: dict[str, Any], is_read: bool) -> None:
    body = json.dumps({"model": "m", "user": "u", "n": 1, **more}).encode()
    assert (read_at_once(body) is not None) == is_read
    assert read_request(body).user == "u"
    disguised = body.replace(b"and", b"\\u0061nd")
    assert (read_at_once(disguised) is not None) == is_read
    for twice in (b'"user":"v"', b'"us\\u0065r":"v"'):
        with pytest.raises(BadRequest) as caught:
            read_request(body[:-1] + b"," + twice + b"}")
        assert caught.value.reported_code == "duplicate_field"


@given(st.lists(NAMES, max_size=4), JSON_VALUES, st.sampled_from(["", " ", "\n\t"]))
def test_a_name_is_refused_exactly_if_the_top_level_repeats_it(
    names: list[str], inner: Any, blank: str
) -> None:
    value = json.dumps({"user": inner, "x": {"model": 1}})
    pairs = [f"{json.dumps(name)}{blank}:{value}" for name in names]
    body = ("{" + ",".join([*pairs, '"model":"m"']) + "}").encode()
    repeated = [name for name in ("model", "user") if [*names, "model"].count(name) > 1]
    if repeated:
        with pytest.raises(BadRequest) as caught:
            read_request(body)
        assert caught.value.param == repeated[0]
    else:
        assert read_request(body).model == "m"


def test_a_routing_name_inside_tools_is_no_duplicate() -> None:
    schema = {"properties": {"model": {"type": "string"}, "n": {}}}
    body = {"model": "m", "n": 1, "tools": [{"function": {"parameters": schema}}]}
    assert read_request(json.dumps(body).encode()).model == "m"


@given(st.dictionaries(st.text(max_size=6), JSON_VALUES, max_size=5))
def test_unknown_fields_change_nothing(fields: dict[str, Any]) -> None:
    body = {**fields, "model": "m"}
    assert read_request(json.dumps(body).encode()).model == "m"


def test_parts_decodes_only_what_rules_look_at() -> None:
    body = {"model": "m", "messages": [1], "tools": [], "temperature": 0.5, "user": "u"}
    assert read_request(json.dumps(body).encode()).parts() == {"messages": [1], "tools": []}
