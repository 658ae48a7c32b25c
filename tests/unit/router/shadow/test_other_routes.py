"""Comparison of responses, of Anthropic's messages, and of prompts with images."""

import json
from typing import Any

import pytest

from penumbra.router.mirror.frame import MirrorFrame
from tests.support.mirrored import ANSWER_IDS, PROMPT_IDS, message_frame, mirrored, response_frame
from tests.support.shadow import ComparatorSetup, compare, watch

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def picture_frame(**changes: Any) -> MirrorFrame:
    body = {"model": "demo", "messages": [{"role": "user", "content": [PICTURE]}]}
    return mirrored(body=json.dumps(body).encode(), **changes)


async def test_a_response_is_compared_like_a_chat() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].shift = -0.5
    await compare(setup, response_frame())
    (pair,) = setup.pairs
    assert (pair.route, pair.modality, pair.tokens, pair.harm) == ("responses", "text", 5, 0)
    assert pair.displacement is not None
    assert pair.displacement > 0.0
    (scored,) = setup.builds["full"].scores
    assert scored["prompt"] == [*PROMPT_IDS, *ANSWER_IDS]
    (asked,) = setup.builds["int8"].asked("/v1/responses")
    # An engine keeps no answer that no client will ask for.
    assert (asked["store"], asked["stream"], asked["max_output_tokens"]) == (False, False, 2048)


async def test_a_pair_tells_how_long_its_prompt_is_and_in_which_script() -> None:
    setup = ComparatorSetup(watch(generate=1.0, aa=1.0))
    turn = {"role": "user", "content": "Расскажи мне, пожалуйста, о погоде"}
    await compare(setup, mirrored(body=json.dumps({"model": "demo", "messages": [turn]}).encode()))
    told = [(pair.prompt_tokens, pair.script) for pair in setup.pairs]
    assert told == [(len(PROMPT_IDS), "cyrillic")] * 2


async def test_a_message_tells_its_script_and_no_tokens() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    turn = {"role": "user", "content": "Tell me about the weather, please"}
    body = {"model": "demo", "max_tokens": 50, "messages": [turn]}
    await compare(setup, message_frame(body=json.dumps(body).encode()))
    (pair,) = setup.pairs
    assert (pair.prompt_tokens, pair.script) == (0, "latin")


async def test_harm_is_found_in_a_response() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].text = ""
    await compare(setup, response_frame())
    (pair,) = setup.pairs
    assert (pair.harm, pair.failed) == (1, ("empty",))


async def test_no_tool_of_an_engines_own_is_run_for_a_comparison() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    body = {"model": "demo", "input": "x", "tools": [{"type": "web_search"}]}
    await compare(setup, response_frame(body=json.dumps(body).encode()))
    (pair,) = setup.pairs
    assert pair.displacement == 0.0
    assert pair.harm is None
    assert setup.builds["int8"].asked("/v1/responses") == []


@pytest.mark.parametrize(
    ("frame", "route", "modality"),
    [(message_frame(), "messages", "text"), (picture_frame(), "chat", "image")],
    ids=["message", "image"],
)
async def test_what_tells_no_tokens_of_its_text_is_compared_by_harm_alone(
    frame: MirrorFrame, route: str, modality: str
) -> None:
    setup = ComparatorSetup(watch(generate=1.0, aa=1.0))
    setup.builds["int8"].text = ""
    await compare(setup, frame)
    pair, again = setup.pairs
    assert (pair.route, pair.modality, pair.harm, pair.failed) == (route, modality, 1, ("empty",))
    assert (pair.displacement, pair.tokens, pair.missing) == (None, 0, None)
    assert (again.arm.value, again.harm, again.displacement) == ("baseline", 0, None)
    assert all(build.scores == [] for build in setup.builds.values())


async def test_a_message_by_the_candidate_is_answered_by_the_baseline() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["full"].text = ""
    await compare(setup, message_frame(variant="int8"))
    (pair,) = setup.pairs
    assert (pair.answered_by, pair.harm, pair.failed_baseline) == ("int8", -1, ("empty",))


async def test_a_message_that_no_other_build_answers_says_nothing() -> None:
    setup = ComparatorSetup(watch(generate=0.0, aa=1.0))
    await compare(setup, message_frame())
    assert setup.pairs == []
    assert setup.reports.sheds == [("int8", "not_drawn")]


async def test_a_message_that_the_candidate_fails_to_answer_is_its_failure() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].status = 500
    await compare(setup, message_frame())
    (pair,) = setup.pairs
    assert (pair.harm, pair.failed, pair.missing) == (1, ("no_answer",), "answer: status_500")
