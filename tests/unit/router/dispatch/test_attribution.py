"""Attribution of a candidate's failures by the baseline's answer to the same request."""

import asyncio
from typing import Any

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.fake import EVENTS, Body, End, Fail, Hang, Head, Script, events, whole
from tests.support.dispatching import STREAM, WHOLE
from tests.unit.router.dispatch.test_dispatch import ERROR, GOOD, ROLE, Run, chunk

HTML = (b"content-type", b"text/html")
FAILURES: dict[str, tuple[Script, Outcome]] = {
    "5xx": (whole(ERROR, status=500), Outcome.SERVER_ERROR),
    "engine-401": (whole(ERROR, status=401), Outcome.REJECTED),
    "engine-404": (whole(ERROR, status=404), Outcome.REJECTED),
    "engine-429": (whole(ERROR, status=429), Outcome.REJECTED),
    "engine-400": (whole(ERROR, status=400), Outcome.REJECTED),
    "proxy-400": ([Head(400, (HTML,)), Body(b"<html>"), End()], Outcome.REJECTED),
    "html-200": ([Head(200, (HTML,)), Body(b"<html>"), End()], Outcome.GARBAGE),
    "error-200": (whole(ERROR), Outcome.SERVER_ERROR),
    "empty-200": ([Head(), End()], Outcome.GARBAGE),
    "half-200": ([Head(), Body(b'{"choices":[{"x":1}'), End()], Outcome.GARBAGE),
    "dies": ([Head(), Body(b"{"), Fail(Outcome.DIED)], Outcome.DIED),
    "closes": ([Fail(Outcome.REFUSED, was_sent=True)], Outcome.REFUSED),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_what_the_candidate_does_alone_is_held_against_it(name: str) -> None:
    script, outcome = FAILURES[name]
    run = Run([script], [whole(GOOD)])
    client = await run.to_end()
    assert client.status == 200
    assert run.dispatch.attempt.name == "full"
    assert run.attempts("int8", outcome) == 1
    assert run.attempts("full", Outcome.OK) == 1


@pytest.mark.parametrize("name", FAILURES)
async def test_what_both_builds_do_is_held_against_neither(name: str) -> None:
    script, outcome = FAILURES[name]
    is_refusal = outcome is Outcome.REJECTED and name != "proxy-400"
    run = Run([script], [script, script])
    await run.to_end()
    shared = run.attempts("int8", Outcome.SHARED) + run.attempts("int8", Outcome.CLIENT_ERROR)
    assert shared == 1
    assert run.attempts("int8", outcome) == 0
    if is_refusal:
        assert run.attempts("int8", Outcome.CLIENT_ERROR) == 1


async def test_a_crash_on_a_request_that_the_baseline_refuses_is_no_evidence() -> None:
    run = Run([whole(ERROR, status=500)], [whole(ERROR, status=400)])
    client = await run.to_end()
    assert client.status == 400
    assert run.attempts("int8", Outcome.SHARED) == 1


async def test_a_refusal_of_the_candidate_counts_once_more_for_the_tenant() -> None:
    run = Run([whole(ERROR, status=429)], [whole(GOOD)])
    client = await run.to_end()
    assert client.repeats == 1


async def test_the_candidates_refusal_is_the_answer_if_the_baseline_gives_none() -> None:
    refused: Script = [Fail(Outcome.REFUSED)]
    run = Run([whole(ERROR, status=400)], [refused, refused])
    client = await run.to_end()
    assert client.status == 400
    assert run.attempts("int8", Outcome.SHARED) == 1


async def test_a_missing_route_is_unsupported_and_not_asked_for_again() -> None:
    missing = whole({"detail": "Not Found"}, status=404)
    run = Run([missing], [whole(GOOD)])
    await run.to_end()
    assert run.attempts("int8", Outcome.UNSUPPORTED) == 1
    assert run.dispatch._attempts["int8"].record.capabilities.lacks(
        b"/v1/chat/completions", b"", None, run.now
    )


async def test_a_route_that_was_answered_before_is_not_missing() -> None:
    run = Run([whole({"detail": "Not Found"}, status=404)], [whole(GOOD)])
    run.dispatch._attempts["int8"].record.add_stream_end(b"/v1/chat/completions", 0.0)
    await run.to_end()
    assert run.attempts("int8", Outcome.REJECTED) == 1


async def test_a_candidate_that_stands_in_is_not_judged_by_a_baseline_that_is_down() -> None:
    refused: Script = [Fail(Outcome.REFUSED)]
    run = Run(
        [whole(ERROR, status=500)],
        [refused, refused, whole(GOOD)],
        attempts=("full", "full", "int8"),
    )
    client = await run.to_end()
    assert client.error is not None
    assert run.attempts("int8", Outcome.SHARED) == 1
    assert len(run.upstreams["full"].requests) == 2


async def test_a_limit_of_the_gateway_is_held_against_no_build() -> None:
    run = Run([[Fail(Outcome.GATEWAY_LIMIT)]], [whole(GOOD)])
    await run.to_end()
    assert run.attempts("int8", Outcome.GATEWAY_LIMIT) == 1


async def test_a_kept_connection_that_was_closed_is_no_failure() -> None:
    run = Run([[Fail(Outcome.REFUSED, was_sent=True, was_reused=True)]], [whole(GOOD)])
    client = await run.to_end()
    assert client.status == 200
    assert run.attempts("int8", Outcome.GATEWAY_LIMIT) == 1


async def test_a_request_that_kills_servers_reaches_two_at_most() -> None:
    killed: Script = [Fail(Outcome.REFUSED, was_sent=True)]
    run = Run([killed], [killed, killed, killed])
    await run.to_end()
    sent = [len(run.upstreams[name].requests) for name in ("int8", "full")]
    assert sent == [1, 1]
    assert run.attempts("int8", Outcome.SHARED) == 1


# Without an answer of the baseline to the same request: the arbiter


async def _judged(run: Run, outcome: Outcome) -> None:
    """Wait until the candidate's attempt has ended so."""
    for _ in range(1_000):
        if run.attempts("int8", outcome):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the attempt did not end as {outcome}")


UNCONTINUABLE: dict[str, Any] = {"tools": [{}]}


async def test_a_broken_stream_is_its_own_if_the_baseline_lives() -> None:
    died = [*events(ROLE, chunk("a"), is_done=False), Fail(Outcome.DIED)]
    run = Run([died], body=UNCONTINUABLE, shape=STREAM)
    await run.to_end()
    await _judged(run, Outcome.DIED)


async def test_a_broken_stream_is_no_evidence_if_the_baseline_is_gone_too() -> None:
    died = [*events(ROLE, chunk("a"), is_done=False), Fail(Outcome.DIED)]
    gone: Script = [Fail(Outcome.REFUSED)]
    run = Run([died], body=UNCONTINUABLE, shape=STREAM, repeated=gone)
    await run.to_end()
    await _judged(run, Outcome.SHARED)


async def test_a_client_that_leaves_between_two_attempts_hides_no_failure() -> None:
    run = Run([whole(ERROR, status=500)], [[Hang()]])
    run.dispatch.start()
    for _ in range(10):
        await asyncio.sleep(0)
    run.dispatch.abort()
    await _judged(run, Outcome.SERVER_ERROR)
    assert run.attempts("full", Outcome.CLIENT_GONE) == 1


async def test_a_client_that_leaves_turns_no_lack_into_a_failure() -> None:
    missing = whole({"detail": "Not Found"}, status=404)
    run = Run([missing], [[Hang()]])
    run.dispatch.start()
    for _ in range(10):
        await asyncio.sleep(0)
    run.dispatch.abort()
    await _judged(run, Outcome.UNSUPPORTED)
    assert run.attempts("int8", Outcome.REJECTED) == 0


async def test_a_dead_build_is_found_out_before_a_long_answer_of_the_baseline_ends() -> None:
    run = Run([[Fail(Outcome.REFUSED)]], [[Hang()]], shape=WHOLE)
    run.dispatch.start()
    await _judged(run, Outcome.REFUSED)
    run.dispatch.abort()


# Clocks


async def test_a_whole_answer_over_its_time_is_slow_if_the_build_answers_others() -> None:
    run = Run([[Hang()]], [whole(GOOD)], shape=WHOLE)
    run.dispatch.start()
    run.now = 600.0
    run.dispatch._attempts["int8"].record.answered_at = 1.0
    run.dispatch.expire(600.0)
    await run.client.over.wait()
    assert run.attempts("int8", Outcome.OVERTIME) == 1


async def test_a_build_that_answers_nothing_hangs() -> None:
    run = Run([[Hang()]], [whole(GOOD)], shape=WHOLE)
    run.dispatch.start()
    run.now = 600.0
    run.dispatch.expire(600.0)
    await run.client.over.wait()
    assert run.attempts("int8", Outcome.TIMEOUT) == 1


async def test_comments_keep_no_hanging_candidate() -> None:
    comments = [Head(200, tuple(EVENTS)), Body(b": keep-alive\n\n"), Hang()]
    run = Run([comments], [events(ROLE, chunk("a", finish_reason="stop"))], shape=STREAM)
    run.dispatch.start()
    for _ in range(5):
        await asyncio.sleep(0)
    limit = run.dispatch.deadline
    run.now = limit
    run.dispatch.expire(limit)
    client = run.client
    await client.over.wait()
    assert client.text() == "a"
    assert b"keep-alive" not in client.body
    assert run.attempts("int8", Outcome.TIMEOUT) == 1


async def test_comments_of_the_baseline_pass_at_once() -> None:
    comments = [Head(200, tuple(EVENTS)), Body(b": thinking\n\n"), Hang()]
    run = Run(baseline=[comments], attempts=("full", "full"), shape=STREAM)
    run.dispatch.start()
    await asyncio.wait_for(run.client.began.wait(), 1.0)
    assert run.client.body == b": thinking\n\n"
    assert run.dispatch.deadline == run.dispatch._limits.first_byte_seconds


async def test_comments_in_mid_stream_are_no_progress() -> None:
    steps = [*events(ROLE, chunk("a"), is_done=False), Body(b": ping\n\n"), Hang()]
    run = Run(baseline=[steps], attempts=("full", "full"), shape=STREAM)
    run.now = 5.0
    run.dispatch.start()
    await run.client.began.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert run.client.body.endswith(b": ping\n\n")
    assert run.dispatch._progressed_at == 5.0
