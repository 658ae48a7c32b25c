"""Decodings beside prefills: what is asked for, and what becomes of it in a pair."""

import json
from typing import Any

import pytest

from penumbra.monitoring.observations import Arm
from penumbra.monitoring.signals.answer import read_answer
from penumbra.router.shadow.decode import ask_for_decoding, is_decode_comparable
from tests.support.mirrored import answer_bytes, mirrored
from tests.support.requests import CHAT, COMPLETIONS
from tests.support.shadow import Build, ComparatorSetup, compare, watch

OTHER_IDS = (30, 31, 32)


def tapped(build: Build, **frame: Any) -> Any:
    """A mirrored request whose answer tells the log-probabilities of the decoding."""
    return mirrored(answer=answer_bytes(logprobs=build.decoding()), **frame)


async def test_sound_builds_have_no_decode_gap_and_cost_no_further_score() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    await compare(setup, tapped(setup.builds["full"]))
    (pair,) = setup.pairs
    assert (pair.decode_gap, pair.own_gap, pair.baseline_gap) == (0.0, 0.0, 0.0)
    assert pair.decode_apart is None
    assert [len(build.scores) for build in setup.builds.values()] == [1, 1]


async def test_damage_in_decoding_alone_is_a_gap_and_no_displacement() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].decode_shift = -0.05
    await compare(setup, tapped(setup.builds["full"]))
    (pair,) = setup.pairs
    assert pair.displacement == 0.0
    assert pair.decode_gap == pytest.approx(0.0488, abs=1e-4)
    assert pair.decode_apart == pytest.approx(0.0488, abs=1e-4)
    assert pair.prefill_apart == 0.0


async def test_another_answer_is_scored_by_the_build_that_made_it() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].says = OTHER_IDS
    await compare(setup, tapped(setup.builds["full"]))
    (pair,) = setup.pairs
    assert pair.decode_gap == 0.0
    assert setup.builds["int8"].scores[1]["prompt"][-3:] == [*OTHER_IDS]
    assert len(setup.builds["full"].scores) == 1


async def test_the_baseline_scores_another_answer_only_where_it_has_to_arbitrate() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].says = OTHER_IDS
    setup.builds["int8"].shift = -0.3
    setup.builds["int8"].decode_shift = 0.3
    await compare(setup, tapped(setup.builds["full"]))
    (pair,) = setup.pairs
    assert pair.decode_apart == pytest.approx(0.0, abs=1e-9)
    assert pair.prefill_apart == pytest.approx(0.2592, abs=1e-4)
    assert setup.builds["full"].scores[1]["prompt"][-3:] == [*OTHER_IDS]


async def test_a_floor_that_both_builds_have_is_no_gap_of_the_candidate() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    for build in setup.builds.values():
        build.decode_shift = -0.05
    await compare(setup, tapped(setup.builds["full"]))
    (pair,) = setup.pairs
    assert pair.decode_gap == 0.0
    assert pair.baseline_gap == pytest.approx(0.0488, abs=1e-4)


async def test_an_answer_of_the_candidate_is_compared_with_a_shadow_answer() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].decode_shift = -0.05
    await compare(setup, tapped(setup.builds["int8"], variant="int8"))
    (pair,) = setup.pairs
    assert pair.decode_gap == pytest.approx(0.0488, abs=1e-4)
    assert pair.prefill_apart == 0.0


async def test_the_baseline_is_compared_with_itself_in_the_same_way() -> None:
    setup = ComparatorSetup(watch(generate=1.0, aa=1.0))
    await compare(setup, tapped(setup.builds["full"]), expected=2)
    again = next(pair for pair in setup.pairs if pair.arm is Arm.BASELINE)
    assert again.decode_gap == 0.0


async def test_without_the_clients_log_probabilities_there_is_no_decode_gap() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    await compare(setup, mirrored())
    (pair,) = setup.pairs
    assert (pair.decode_gap, pair.harm) == (None, 0)


async def test_an_engine_that_refuses_log_probabilities_is_asked_without() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].knows_decoding = False
    await compare(setup, tapped(setup.builds["full"], request_id="a"))
    await compare(setup, tapped(setup.builds["full"], request_id="b"), expected=2)
    assert [pair.missing for pair in setup.pairs] == [None, None]
    assert [pair.harm for pair in setup.pairs] == [0, 0]
    assert [bool(body.get("logprobs")) for body in setup.builds["int8"].answers] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("fields", "is_comparable"),
    [
        ({}, True),
        ({"response_format": {"type": "text"}, "tool_choice": "auto"}, True),
        ({"response_format": {"type": "json_object"}}, False),
        ({"structured_outputs": {"regex": "a+"}}, False),
        ({"tool_choice": "required"}, False),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, False),
    ],
)
def test_answers_that_a_grammar_binds_have_other_log_probabilities(
    fields: dict[str, Any], is_comparable: bool
) -> None:
    assert is_decode_comparable({"messages": [], **fields}) is is_comparable


def test_a_wish_of_the_clients_own_for_log_probabilities_stays() -> None:
    asked = ask_for_decoding(CHAT, {"logprobs": True, "top_logprobs": 3})
    assert asked == {"logprobs": True, "top_logprobs": 3, "return_token_ids": True}
    assert ask_for_decoding(COMPLETIONS, {"logprobs": 2})["logprobs"] == 2
    assert ask_for_decoding(COMPLETIONS, {})["logprobs"] == 0


@pytest.mark.parametrize(
    "rows",
    [
        {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]},
        {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{}], "text_offset": [0]},
    ],
)
def test_an_answers_log_probabilities_are_read(rows: dict[str, Any]) -> None:
    raw = answer_bytes(token_ids=(1,), logprobs=rows)
    answer = read_answer(CHAT, is_stream=False, raw=raw)
    assert answer is not None
    assert answer.choices[0].logprobs == (-0.5,)


@pytest.mark.parametrize("rows", [None, [], "x", {"content": None}, {"content": [{"logprob": -1}]}])
def test_log_probabilities_that_are_not_of_all_tokens_are_none(rows: Any) -> None:
    answer = read_answer(CHAT, is_stream=False, raw=answer_bytes(logprobs=rows))
    assert answer is not None
    assert (answer.choices[0].logprobs, answer.has_error) == ((), False)


def test_a_streams_log_probabilities_are_put_together() -> None:
    rows = [{"content": [{"logprob": -0.25}]}, {"content": [{"logprob": -0.5}]}]
    data = b"".join(
        b"data: %b\n\n"
        % json.dumps(
            {"choices": [{"index": 0, "delta": {}, "logprobs": row, "token_ids": [7]}]}
        ).encode()
        for row in rows
    )
    answer = read_answer(CHAT, is_stream=True, raw=data)
    assert answer is not None
    assert answer.choices[0].logprobs == (-0.25, -0.5)
