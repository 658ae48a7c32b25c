"""Bodies that are read in steps: the same is found in them as by the parse of small ones."""

import collections
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penumbra.router.errors import BadRequest
from penumbra.router.gateway import body_scan, body_tokens, prompt_length
from penumbra.router.gateway.body_peek import (
    AT_ONCE_BYTES,
    DECODED_FIELDS,
    UNDECODED_FIELDS,
    BodyPeek,
    decode,
    refuse_repeated,
)
from penumbra.router.gateway.large_body import LargeBody, PartsTooLarge, read_request

NAMES = ("model", "user", "stream", "n", "messages", "prompt", "tools", "metadata", "seed", "x")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(NAMES)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
BLANKS = st.sampled_from(["", "", "", " ", "\n\t ", " " * 40])


@pytest.fixture(params=[(16, 8, 1), (64, 32, 300), None], ids=str)
def bounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds so small that every token is cut, and those in force."""
    if request.param is None:
        return
    stretch, reach, units = request.param
    for module in (body_tokens, prompt_length):
        monkeypatch.setattr(module, "STRETCH_BYTES", stretch)
    for module in (body_tokens, body_scan):
        monkeypatch.setattr(module, "SHORTEST_REACH_BYTES", reach)
    for module in (body_scan, prompt_length):
        monkeypatch.setattr(module, "STEP_UNITS", units)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Objects of some routing fields and others, in all spellings of JSON, a few of them broken."""
    pairs = draw(st.lists(st.tuples(st.sampled_from(NAMES) | TEXTS, VALUES), max_size=6))
    is_ascii = draw(st.booleans())
    members = []
    for name, value in pairs:
        key = json.dumps(name, ensure_ascii=is_ascii)
        if name and name.isascii() and draw(st.integers(0, 3)) == 0:  # one letter in disguise
            at = draw(st.integers(0, len(name) - 1))
            key = (
                json.dumps(name[:at])[:-1]
                + f"\\u{ord(name[at]):04x}"
                + json.dumps(name[at + 1 :])[1:]
            )
        blank = draw(BLANKS)
        text = json.dumps(value, ensure_ascii=is_ascii, indent=draw(st.sampled_from([None, 1])))
        members.append(f"{blank}{key}{blank}:{blank}{text}{draw(BLANKS)}")
    body = bytearray(("{" + ",".join(members) + draw(BLANKS) + "}").encode())
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from(
                [b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b"e"]
            )
            | st.binary(max_size=2)
        )
    return bytes(body)


def fields_of(peek: BodyPeek) -> dict[str, Any]:
    """The fields of a peek that are there, those that are not decoded as bytes."""
    found = {name: getattr(peek, name) for name in DECODED_FIELDS}
    found |= {name: bytes(getattr(peek, name)) for name in UNDECODED_FIELDS}
    return {name: value for name, value in found.items() if value not in (None, b"")}


def in_one_parse(body: bytes) -> dict[str, Any]:
    peek = decode(body)
    pairs = json.loads(body, object_pairs_hook=lambda pairs: pairs, parse_int=str, parse_float=str)
    counts = collections.Counter(name for name, _ in pairs)
    refuse_repeated({name for name, count in counts.items() if count > 1})
    return fields_of(peek)


def in_steps(body: bytes) -> dict[str, Any]:
    large = LargeBody(body)
    while (peek := large.step()) is None:
        pass
    return fields_of(peek)


def outcome(read: Any, body: bytes) -> Any:
    try:
        return read(body)
    except BadRequest as error:
        return error.reported_code, error.param


@pytest.mark.usefixtures("bounds")
@settings(max_examples=400)
@given(bodies())
def test_steps_find_what_one_parse_finds(body: bytes) -> None:
    assert outcome(in_steps, body) == outcome(in_one_parse, body)


ODD = {
    "empty": b"",
    "blank": b" \n",
    "array": b"[{}]",
    "bom": b"\xef\xbb\xbf{}",
    "nul": b"{}\x00",
    "trailing_comma": b'{"x":[1,],"model":"m"}',
    "trailing_member": b'{"model":"m",}',
    "comma_only": b"{,}",
    "unclosed": b'{"model":"m"',
    "wrong_closer": b'{"x":[1}',
    "nothing_for_a_value": b'{"x":}',
    "two_values": b'{"x":1 2}',
    "nan": b'{"x":NaN}',
    "minus": b'{"x":-}',
    "leading_zero": b'{"x":012}',
    "minus_leading_zero": b'{"x":-01}',
    "point": b'{"x":1.}',
    "exponent": b'{"x":1e+}',
    "long_number": b'{"x":-' + b"12" * 500 + b"." + b"3" * 900 + b"e-" + b"4" * 700 + b"}",
    "long_broken_number": b'{"x":' + b"1" * 900 + b"." + b"3" * 900 + b"e}",
    "long_zero": b'{"x":0' + b"0" * 900 + b"}",
    "infinite": b'{"x":1e999,"messages":[1e999]}',
    "infinite_user": b'{"user":1e999}',
    "digits": b'{"messages":[],"seed":' + b"1" * 5000 + b',"y":"\\u0061"}',
    "digits_in_n": b'{"n":' + b"1" * 5000 + b"}",
    "control": b'{"x":"a\nb"}',
    "bad_escape": b'{"x":"\\q"}',
    "cut_escape": b'{"x":"\\u12"}',
    "half_pair": b'{"x":"\\ud800"}',
    "half_pair_and_more": b'{"x":"\\ud800 and some more text"}',
    "other_half": b'{"x":"\\udc00"}',
    "pair": b'{"x":"' + b"\\ud83d\\ude00" * 50 + b'"}',
    "half_pair_in_a_name": b'{"\\ud800":1}',
    "escapes": b'{"x":"' + rb"\"\\\/\b\f\n\r\t\u0061" * 50 + b'"}',
    "not_utf8": b'{"x":"' + b"a" * 100 + b'\xff"}',
    "cut_utf8": '{"x":"ä'.encode()[:-1],
    "surrogate_in_utf8": b'{"x":"\xed\xa0\x80"}',
    "long_text": ('{"x":"' + "ä😀\\n" * 500 + '"}').encode(),
    "model_number": b'{"model":5}',
    "model_empty": b'{"model":""}',
    "model_twice_first_wrong": b'{"model":5,"model":"m"}',
    "nested_names": b'{"model":"m","x":{"model":1,"n":[{"n":2,"user":{}}]},"n":1}',
    "names_in_text": b'{"model":"m","x":"\\"model\\":","y":["n","n","user"]}',
    "escaped_names": b'{"m\\u006fdel":"m","model":"n"}',
    "escaped_name_alone": b'{"m\\u006fdel":"m"}',
    "depth": b'{"x":' + b"[" * 800 + b"]" * 800 + b"}",
    "depth_of_objects": b'{"x":' + b'{"a":' * 700 + b"1" + b"}" * 700 + b"}",
    "depth_of_both": b'{"x":' + b'[{"a": ' * 300 + b"1" + b" }\n]" * 300 + b"}",
    "blanks_between_ends": b'{"messages":[[[{"a":[[1 ] ]} ] ] ]  ,"tools": {"a":{"b":[{}]}}\t}',
    "wrong_ends": b'{"x":' + b'[{"a":' * 30 + b"1" + b"}]" * 20 + b"]}" * 10 + b"}",
    "one_end_too_many": b'{"x":' + b"[" * 30 + b"]" * 31 + b"}",
    "end_of_a_name": b'{"x":' + b'{"a":' * 30 + b"}" * 30 + b"}",
    "two_commas": b'{"x":[[[[[1,,2]]]]]}',
    "comma_before_an_end": b'{"x":[[[[[1,]]]]],"y":{"a":{"b":{"c":{"d":1,}}}}}',
    "too_deep": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep_and_open": b'{"x":' + b"[" * 100_000,
    "deep_user": b'{"user":' + b"[" * 2000 + b"]" * 2000 + b"}",
}


@pytest.mark.usefixtures("bounds")
@pytest.mark.parametrize("body", ODD.values(), ids=ODD.keys())
def test_steps_take_odd_bodies_as_one_parse_does(body: bytes) -> None:
    assert outcome(in_steps, body) == outcome(in_one_parse, body)


@pytest.mark.parametrize("number", ["1.5", "1e5", "1e+5", "-1.5e-5", "1.e5", "1e", "1e+", "1."])
@pytest.mark.parametrize("edge", [body_tokens.SHORTEST_REACH_BYTES, body_tokens.STRETCH_BYTES])
def test_a_number_is_whole_wherever_a_look_ends(number: str, edge: int) -> None:
    head, digit, tail = number.partition("1")
    for digits in range(edge - 8, edge + 4):
        body = f'{{"x":[[[[[{head}{digit * digits}{tail}]]]]]}}'.encode()
        assert outcome(in_steps, body) == outcome(in_one_parse, body)


@pytest.mark.parametrize("name", DECODED_FIELDS)
def test_a_huge_value_of_a_short_field_is_known_by_its_digest(name: str) -> None:
    body = json.dumps({name: ["x" * 50] * 5000}).encode()
    if name == "model":
        assert outcome(in_steps, body) == ("invalid_request", "model")
    else:
        assert len(in_steps(body)[name]) == 32


def read(body: dict[str, Any]) -> BodyPeek:
    return read_request(json.dumps(body, ensure_ascii=False).encode())


MANY = 60_000


@pytest.mark.parametrize(
    ("body", "least", "most"),
    [
        ({"messages": [{"role": "user", "content": "abcd, "}] * MANY}, 6 * MANY, 6 * MANY),
        ({"messages": [{"content": [{"type": "text", "text": "abc"}]}] * MANY}, 3 * MANY, 7 * MANY),
        ({"messages": [{"content": "ä" * 3_000_000}]}, 1_500_000, 3_000_000),
        ({"prompt": "a\nb" * 2_000_000}, 6_000_000, 6_000_000),
        ({"prompt": ["abc"] * MANY}, 3 * MANY, 3 * MANY),
        ({"input": "x" * 5_000_000, "instructions": "y" * 100}, 5_000_100, 5_000_100),
        ({"prompt": [1] * MANY}, 0, 0),
        (
            {
                "messages": [
                    {"content": [{"image_url": {"url": "data:" + "x" * 5_000_000}}]},
                    {"content": [{"text": "look, "}]},
                ]
            },
            6,
            6,
        ),
    ],
    ids=["chat", "parts", "non_ascii", "escapes", "prompts", "responses", "token_ids", "image"],
)
def test_a_prompt_that_is_not_decoded_is_measured(
    body: dict[str, Any], least: int, most: int
) -> None:
    peek = read(body)
    assert 0.99 * least <= peek.least_chars <= most
    with pytest.raises(PartsTooLarge):
        peek.parts()


def test_a_large_prompt_of_few_values_is_decoded() -> None:
    body = {"messages": [{"role": "user", "content": "Word, " * 500_000}], "model": "m"}
    peek = read(body)
    assert peek.parts() == {"messages": body["messages"]}
    assert peek.least_chars == 0


@pytest.mark.parametrize("field", ["messages", "prompt", "input"])
def test_a_small_prompt_of_very_many_values_is_not_decoded(field: str) -> None:
    body = json.dumps({field: ["ab"] * 17_000}, separators=(",", ":")).encode()
    assert len(body) < AT_ONCE_BYTES
    peek = read_request(body)
    assert 33_900 <= peek.least_chars <= 34_000
    with pytest.raises(PartsTooLarge):
        peek.parts()


def test_large_metadata_is_not_kept() -> None:
    peek = read({"metadata": {"user_id": "u", "x": "y" * 200_000}})
    assert bytes(peek.metadata) == b""
    assert bytes(read({"metadata": {"user_id": "u"}}).metadata) == b'{"user_id": "u"}'


def test_a_body_cannot_set_what_is_measured() -> None:
    body = {"measured_chars": 7, "has_large_parts": True, "messages": []}
    for padding in ("", "p" * 200_000):
        peek = read({**body, "padding": padding})
        assert (peek.least_chars, peek.parts()) == (0, {"messages": []})
        assert msgspec.to_builtins(peek.stream) is None
