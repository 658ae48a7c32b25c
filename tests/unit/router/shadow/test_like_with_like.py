"""Equal builds look equal, in whatever way the client was answered and whenever it left."""

import json
from typing import Any

import msgspec
import pytest

from penumbra.monitoring.observations import Arm
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.upstream.fake import Body, Script, events, whole
from penumbra.router.upstream.port import UpstreamRequest
from tests.support import shadow
from tests.support.mirrored import ANSWER_IDS, PROMPT_IDS, answer_bytes, mirrored
from tests.support.shadow import Build, ComparatorSetup, compare, watch

LOOP = "and so on " * 30


def streamed(text: str, finish: str | None = "stop") -> Script:
    """A stream with its token ids; without a finish reason it was not all."""
    first = {"index": 0, "delta": {"role": "assistant", "content": text}, "token_ids": ANSWER_IDS}
    told: list[dict[str, Any]] = [{"prompt_token_ids": PROMPT_IDS, "choices": [first]}]
    if finish is not None:
        told.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return events(*told)


def bytes_of(script: Script) -> bytes:
    return b"".join(step.data for step in script if isinstance(step, Body))


def left(text: str, **changes: Any) -> MirrorFrame:
    """A stream whose client left after some tokens, as a gateway hands it over."""
    answer = bytes_of(streamed(text, None))
    fields = {"is_stream": True, "candidates": (), "partial_for": ("int8",), "answer": answer}
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "model": "demo"}
    return mirrored(**{"body": json.dumps(body).encode(), **fields, **changes})


class StreamsBadly(Build):
    """A build whose parser swallows the answer where it is streamed, and only there."""

    def __call__(self, request: UpstreamRequest) -> Script:
        is_answer = request.path == b"/v1/chat/completions"
        if is_answer and json.loads(request.body)["stream"]:
            self.requests.append(request)
            return streamed("")
        return super().__call__(request)


@pytest.mark.parametrize("variant", ["full", "int8"])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_equal_builds_that_stream_worse_than_they_answer_whole_do_no_harm(
    variant: str, is_stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "Build", StreamsBadly)
    setup = ComparatorSetup(watch(generate=1.0))
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": is_stream, "model": "demo"}
    answer = bytes_of(streamed("")) if is_stream else answer_bytes()
    request = mirrored(
        variant=variant, body=json.dumps(body).encode(), is_stream=is_stream, answer=answer
    )
    await compare(setup, request)
    (pair,) = setup.pairs
    failed = ("empty",) if is_stream else ()
    assert (pair.harm, pair.failed, pair.failed_baseline) == (0, failed, failed)


async def test_what_a_client_got_before_it_left_is_scored() -> None:
    setup = ComparatorSetup(watch())
    setup.builds["int8"].shift = -0.5
    await compare(setup, left("It rai"))
    (pair,) = setup.pairs
    assert (pair.tokens, pair.harm) == (len(ANSWER_IDS), None)
    assert pair.displacement is not None
    assert pair.displacement > 0.0
    assert setup.reports.sheds == []


async def test_the_other_build_answers_as_far_as_the_client_waited() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].answer = streamed("It rai", "length")
    await compare(setup, left("It rai"))
    (pair,) = setup.pairs
    assert (pair.harm, pair.missing) == (0, None)
    (asked,) = setup.builds["int8"].answers
    assert (asked["max_tokens"], asked["stream"]) == (len(ANSWER_IDS), True)


@pytest.mark.parametrize(("variant", "harm"), [("full", -1), ("int8", 1)])
async def test_a_loop_that_a_client_ran_away_from_is_harm_of_the_build_that_made_it(
    variant: str, harm: int
) -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    for build in setup.builds.values():
        build.answer = streamed("It rai", "length")
    await compare(setup, left(LOOP, variant=variant))
    (pair,) = setup.pairs
    assert pair.harm == harm


@pytest.mark.parametrize("variant", ["full", "int8"])
@pytest.mark.parametrize(
    "other",
    ["{}", "It rains here in autumn, and in spring the snow melts late. " + "x" * 9, "short"],
)
async def test_an_answer_that_was_left_is_not_held_to_its_end(variant: str, other: str) -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    for build in setup.builds.values():
        build.answer = streamed(other, "stop")
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "model": "demo"}
    body["response_format"] = {"type": "json_object"}
    await compare(setup, left('{"a": [1, 2', variant=variant, body=json.dumps(body).encode()))
    (pair,) = setup.pairs
    assert (pair.harm, pair.failed, pair.failed_baseline) == (0, (), ())


async def test_an_older_comparator_takes_no_part_in_an_answer_that_was_left() -> None:
    older = msgspec.structs.replace(left("It rai"), partial_for=())
    setup = ComparatorSetup(watch(generate=1.0))
    setup.comparator.offer(older, 100)
    assert (setup.comparator.queue.items, setup.reports.sheds) == (0, [])


async def test_answers_that_were_left_tell_no_usual_length() -> None:
    setup = ComparatorSetup(watch())
    await compare(setup, left("It rai"))
    assert setup.comparator._lengths["demo"]._recent == {}


def failed(**changes: Any) -> MirrorFrame:
    """A request that the baseline failed, as a gateway hands it over."""
    fields = {"candidates": (), "partial_for": ("int8",), "problem": "status_500", "answer": b""}
    return mirrored(**{**fields, **changes})


async def test_a_clients_request_that_only_the_baseline_failed_is_its_harm() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    await compare(setup, failed(request_id="r", slice="json", session=7))
    (pair,) = setup.pairs
    assert (pair.arm, pair.answered_by, pair.harm) == (Arm.CANDIDATE, "full", -1)
    assert (pair.displacement, pair.missing) == (None, None)
    assert (pair.failed, pair.failed_baseline) == ((), ("no_answer",))
    assert (pair.slice, pair.session) == ("json", 7)


async def test_a_request_that_both_builds_fail_says_nothing() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].answer = whole({}, 500)
    await compare(setup, failed())
    assert setup.pairs == []
    assert setup.reports.sheds == [("int8", "error")]


async def test_a_failed_request_of_which_no_answer_was_wanted_is_counted() -> None:
    setup = ComparatorSetup(watch(generate=0.0))
    await compare(setup, failed())
    assert setup.reports.sheds == [("int8", "error")]
    assert all(build.requests == [] for build in setup.builds.values())


async def test_the_baseline_is_judged_beside_itself_by_the_same_rule() -> None:
    setup = ComparatorSetup(watch(generate=1.0, aa=1.0))
    await compare(setup, failed(), expected=2)
    assert [(pair.arm, pair.harm) for pair in setup.pairs] == [
        (Arm.CANDIDATE, -1),
        (Arm.BASELINE, -1),
    ]


async def test_a_failed_request_is_of_its_own_route_and_judged_by_its_own_api() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    body = {"model": "demo", "input": "Hi"}
    await compare(setup, failed(path="/v1/responses", body=json.dumps(body).encode()))
    (pair,) = setup.pairs
    assert (pair.route, pair.modality, pair.harm) == ("responses", "text", -1)


async def test_a_failed_request_whose_tools_an_engine_runs_is_not_made_again() -> None:
    setup = ComparatorSetup(watch(generate=1.0, aa=1.0))
    body = {"model": "demo", "input": "Hi", "tools": [{"type": "mcp", "server_url": "x"}]}
    await compare(setup, failed(path="/v1/responses", body=json.dumps(body).encode()))
    assert setup.reports.sheds == [("int8", "error")]
    assert all(build.asked("/v1/responses") == [] for build in setup.builds.values())
