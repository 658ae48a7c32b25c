"""Extreme values at every door: what is accepted can be folded, shown and read again; no 5xx."""

import asyncio
import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penumbra.deployments.errors import ReportRefused
from penumbra.deployments.evidence.judge import evidence_of
from penumbra.deployments.history.state import fold
from penumbra.deployments.store.store import Store
from penumbra.monitoring.answers import AnswerCount
from penumbra.monitoring.observations import (
    Counts,
    Report,
    Run,
    RunReport,
    ScorerTest,
    SelfTest,
    Shed,
    Signal,
    Trip,
)
from penumbra.router.link.messages import (
    Answers,
    Attribution,
    EpochApplied,
    Feedback,
    Found,
    Hello,
    LeaseGrant,
    LinkError,
    Locate,
    Refused,
    Renew,
    encode,
    from_gateway,
)
from tests.support.control_plane import FakeGateway, store_url, turns
from tests.support.rollouts import pair
from tests.support.whole_plane import WholePlane, whole_plane

EXTREMES = (
    5e-324, 1e-300, 1e-17, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 0, -1, 1.0,
    2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400, True, False, None, "", "\0",
    "\ud800", "x" * 20_000, "../" , [], {}, [5e-324], {"\ud800": 1}, {"int8": 5e-324},
)  # fmt: skip
SPEC: dict[str, Any] = {
    "model": "demo",
    "candidate": "int8",
    "stages": ["shadow", 1.0, 100.0],
    "alpha": 0.01,
    "promotion_alpha": 0.05,
    "gateways": 4,
    "required_slices": ["other"],
    "on_rollback": "finish",
    "gates": {
        "pairs": 300,
        "slice_pairs": 300,
        "stage_seconds": 60.0,
        "horizon": 1000,
        "failure_requests": 1000,
        "missing_ratio": 0.05,
    },
    "mirror": {
        "rate": 1.0,
        "slices": {"other": 0.5},
        "generate": 1.0,
        "aa": 0.05,
        "aa_tolerance": 0.005,
    },
    "guardrails": [
        {
            "signal": "displacement",
            "tolerance": {"calibrate": 20},
            "slices": {"other": 0.1},
            "action": "rollback",
            "share": 0.3,
        },
        {"signal": "harm", "tolerance": 0.02, "action": "quarantine", "share": 0.3},
        {"signal": "failure", "tolerance": 0.005, "action": "rollback", "share": 0.1},
        {"signal": "ttft", "tolerance": 0.2, "action": "hold", "factor": 1.5},
    ],
}
FLAG: dict[str, Any] = {
    "killed": False,
    "blocked": ["int8"],
    "quarantined": ["other"],
    "pins": [{"kind": "tenant", "subject": "acme", "variant": "int8"}],
    "rules": [
        {
            "name": "rule",
            "match": {
                "tenants": ["acme"],
                "headers": {"x-a": ["1"]},
                "prompt_chars_min": 1,
                "prompt_chars_max": 10,
                "prompt_prefix": ["a"],
            },
            "split": {"int8": 5.0},
        }
    ],
    "split": {"int8": 5.0},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value in a JSON value, its own included."""
    yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))


def put(value: Any, path: tuple[Any, ...], extreme: Any) -> Any:
    """A copy of a JSON value with an extreme at a place."""
    if not path:
        return extreme
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = extreme
    return changed


@contextmanager
def running(folder: Path) -> Iterator[tuple[asyncio.Runner, WholePlane]]:
    """A control process that many examples share."""
    with asyncio.Runner() as runner:
        manager = whole_plane(folder)
        plane = runner.run(manager.__aenter__())
        # An unhandled error is an answer, as it is with a server, not an exception here.
        plane.client._transport.raise_app_exceptions = False  # type: ignore[attr-defined]
        plane.client.headers["content-type"] = "application/json"
        try:
            yield runner, plane
        finally:
            runner.run(manager.__aexit__(None, None, None))


def call(runner: asyncio.Runner, plane: WholePlane, method: str, path: str, body: Any) -> int:
    """Send a body as JSON, lone surrogates and all; returns the status, which is no 5xx."""

    async def send() -> httpx.Response:
        content = json.dumps(body).encode() if body is not None else None
        return await plane.client.request(method, f"/admin/v1{path}", content=content)

    answer = runner.run(send())
    assert answer.status_code < 500, (answer.status_code, answer.text)
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert error["code"]
        assert error["message"]
    return answer.status_code


def require_whole(
    runner: asyncio.Runner, plane: WholePlane, folder: Path, least_epoch: int = 3
) -> None:
    """All that was accepted is shown, and a fresh process reads the same state from the store."""

    async def look() -> None:
        for path in ("/admin/v1/rollouts", "/admin/v1/flags", "/admin/v1/history", "/metrics"):
            assert (await plane.client.get(path)).status_code == 200, path
        for model, candidate in plane.parts.controller.state.rollouts:
            found = await plane.client.get(
                f"/admin/v1/rollouts/{candidate}", params={"model": model}
            )
            assert found.status_code == 200, found.text

    runner.run(look())
    assert plane.parts.controller.state.epoch >= least_epoch, "next to nothing was accepted"
    store = Store(store_url(folder))
    state = fold(store.events())
    store.close()
    assert state == plane.parts.controller.state
    for rollout in state.rollouts.values():
        evidence_of(rollout).findings()


def test_a_rollout_spec_with_extremes_is_refused_or_can_be_folded_and_shown(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as (runner, plane):

        @settings(max_examples=200, deadline=None)
        @given(
            st.lists(
                st.tuples(st.sampled_from([*places(SPEC)][1:]), st.sampled_from(EXTREMES)),
                min_size=1,
                max_size=2,
            )
        )
        def check(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
            spec = SPEC
            for path, extreme in changes:
                try:
                    spec = put(spec, path, extreme)
                except (KeyError, TypeError, IndexError):
                    return  # the first change took the place of the second
            body = {"reason": "try", "spec": spec}
            if call(runner, plane, "PUT", "/rollouts", body) == 200:
                runner.run(report_some(plane))

        check()
        require_whole(runner, plane, tmp_path)
        assert call(runner, plane, "POST", "/flags/demo/kill", {"reason": "stop"}) == 200


async def report_some(plane: WholePlane) -> None:
    """Report pairs and counts of the run that has just begun."""
    rollout = [*plane.parts.controller.state.rollouts.values()][-1]
    run = Run(rollout.spec.model, rollout.spec.candidate, rollout.record.run)
    counts = (Counts("other", Signal.FAILURE, 5, 5), Counts("other", Signal.TTFT, 5, 5))
    observed = [pair(number, 1.0, harm=1, decode_gap=1.0) for number in range(1, 4)]
    await plane.report(run, observed, counts=counts)


def test_a_flag_with_extremes_is_refused_or_can_be_folded_and_shown(tmp_path: Path) -> None:
    bodies: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("PUT", "/flags/demo", {"reason": "r", "flag": FLAG}),
        ("POST", "/flags/demo/split", {"reason": "r", "split": {"int8": 5.0}}),
        ("POST", "/flags/demo/kill", {"reason": "r"}),
        (
            "POST",
            "/flags/demo/pin",
            {"reason": "r", "kind": "key", "subject": "s", "variant": "int8"},
        ),
        ("PUT", "/flagd", {"reason": "r", "flagd": {"flags": {"demo": FLAG}}}),
    )
    doors = [(m, p, body, place) for m, p, body in bodies for place in places(body)]
    with running(tmp_path) as (runner, plane):
        plane.client.headers["if-match"] = "99999"

        @settings(max_examples=200, deadline=None)
        @given(st.sampled_from(doors), st.sampled_from(EXTREMES))
        def check(door: tuple[str, str, Any, tuple[Any, ...]], extreme: Any) -> None:
            method, path, body, place = door
            call(runner, plane, method, path, put(body, place, extreme))

        check()
        require_whole(runner, plane, tmp_path)


@pytest.mark.parametrize("digits", [19, 20, 400, 5000])
def test_numbers_in_paths_queries_and_headers_have_bounds(tmp_path: Path, digits: int) -> None:
    number = "9" * digits
    with running(tmp_path) as (runner, plane):
        for path in (
            f"/history?after={number}",
            f"/history?limit={number}",
            f"/history?after=-{number}",
            f"/snapshots/{number}",
            f"/snapshots/-{number}",
            "/history?model=%ed%a0%80",
            "/flags/%ed%a0%80",
            "/flags/%00",
        ):
            assert call(runner, plane, "GET", path, None) in (200, 400, 404)
        plane.client.headers["if-match"] = number
        body = {"reason": "r", "flag": {}}
        assert call(runner, plane, "PUT", "/flags/demo", body) in (200, 400, 409)


REPORT = json.loads(
    encode(
        Report(
            "gateway-0",
            "life-1",
            1,
            (
                RunReport(
                    Run("demo", "int8", "RUN"),
                    pairs=(pair(1, 0.5, kl=0.1, agreement=1.0, divergence=3, harm=1, own_gap=0.1),),
                    counts=(Counts("other", Signal.FAILURE, 1, 1),),
                    trips=(Trip("failure", "broke", 1.0),),
                    self_tests=(SelfTest(True, 0.1, "fine", 1.0),),
                    sheds=(Shed("other", "busy", 3, "chat"),),
                    scorer_tests=(ScorerTest(1.0, None, "", 0.1, 0.1),),
                    fingerprints={"int8": "a" * 64},
                    builds={"int8": {"weights": "b"}},
                ),
            ),
        )
    )
)


def test_a_report_with_extremes_is_refused_or_can_be_folded_stored_and_shown(
    tmp_path: Path,
) -> None:
    numbers = iter(range(1, 10_000))
    with running(tmp_path) as (runner, plane):
        take: Callable[[Report], Any] = plane.parts.rollouts.take_report

        async def send(value: Any) -> None:
            run = await current_run(plane)
            text = json.dumps(value).replace('"RUN"', json.dumps(run))
            try:
                message = from_gateway(text)
            except LinkError:
                return
            if isinstance(message, Report):
                with contextlib.suppress(ReportRefused):
                    await take(message)
            good = RunReport(Run("demo", "int8", await current_run(plane)), pairs=(pair(5, 0.0),))
            await take(Report("comparator-0", "life-1", next(numbers), (good,)))

        @settings(max_examples=150, deadline=None)
        @given(st.sampled_from([*places(REPORT)]), st.sampled_from(EXTREMES))
        def check(place: tuple[Any, ...], extreme: Any) -> None:
            runner.run(send(put(REPORT, place, extreme)))

        check()
        require_whole(runner, plane, tmp_path, 2)


async def current_run(plane: WholePlane) -> str:
    """The run that is watched; a rollout that was rolled back is re-armed."""
    rollout = plane.parts.controller.state.rollouts.get(("demo", "int8"))
    if rollout is None:
        return await plane.apply({**SPEC, "guardrails": SPEC["guardrails"][:3]})
    if rollout.record.phase == "rolled_back":
        answer = await plane.change("POST", "/rollouts/int8/rearm?model=demo")
        return str(answer["rollout"]["run"])
    return rollout.record.run


ATTRIBUTION = Attribution("demo", "int8", "other")
MESSAGES = [
    json.loads(encode(message))
    for message in (
        Hello("gateway-1", 7, "store", 1, "machine", "127.0.0.1:1", 1),
        EpochApplied(1),
        Refused(1, "no room"),
        Renew(1),
        Answers((AnswerCount("demo", "int8", "2xx", 3),)),
        Feedback(1, "r1", "acme", ATTRIBUTION, thumb=True, score=0.5, metadata={"a": 1}),
        Found(1, ATTRIBUTION),
        Locate(1, "resp_1", "acme"),
    )
]


def test_a_link_message_with_extremes_ends_its_own_link_at_most(tmp_path: Path) -> None:
    doors = [(message, place) for message in MESSAGES for place in places(message)]
    with running(tmp_path) as (runner, plane):
        well = runner.run(plane.connect("well", host="machine"))

        async def first_lease() -> None:
            well.say(encode(Renew(1)))
            await turns(20)
            await plane.parts.tick.run_once()  # it tells the store that leases are granted
            assert (await well.hear(LeaseGrant)).nonce == 1

        runner.run(first_lease())

        async def send(text: str) -> None:
            odd = FakeGateway("odd", host="elsewhere")
            link = asyncio.create_task(plane.parts.gateways.attend(odd, plane.parts.gateway_inbox))
            odd.say(text)
            await turns(20)
            odd.leave()
            ended = (await asyncio.gather(link, return_exceptions=True))[0]
            assert ended is None or isinstance(ended, LinkError), repr(ended)
            await plane.parts.tick.run_once()
            well.say(encode(Renew(9)))
            assert (await well.hear(LeaseGrant)).nonce == 9
            for path in ("/admin/v1/gateways", "/admin/v1/status", "/metrics"):
                assert (await plane.client.get(path)).status_code == 200, path

        @settings(max_examples=100, deadline=None)
        @given(st.sampled_from(doors), st.sampled_from(EXTREMES))
        def check(door: tuple[Any, tuple[Any, ...]], extreme: Any) -> None:
            message, place = door
            runner.run(send(json.dumps(put(message, place, extreme))))

        check()


CONFIGURATION: dict[str, Any] = {
    "models": {
        "demo": {
            "baseline": "full",
            "variants": {
                "full": {"url": "https://full.test", "ca_file": "x"},
                "int8": {"url": "http://int8.test", "api_key_env": "KEY"},
            },
            "slices": [{"name": "long", "match": {"prompt_chars_min": 9}}],
            "sticky_headers": ["x-user"],
            "flag": {"split": {"int8": 1.0}},
        }
    },
    "keys": [{"tenant": "acme", "sha256": "a" * 64, "limits": {"concurrency": 8}}],
    "local": {"gateway.port": 8080},
    "expected_epoch": 99_999,
    "dry_run": False,
    "reason": "test",
}


def test_a_configuration_with_extremes_is_refused_or_can_be_folded_and_shown(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as (runner, plane):

        @settings(max_examples=150, deadline=None)
        @given(st.sampled_from([*places(CONFIGURATION)][1:]), st.sampled_from(EXTREMES))
        def check(path: tuple[Any, ...], extreme: Any) -> None:
            based = CONFIGURATION | {"expected_epoch": plane.parts.controller.state.epoch}
            body = put(based, path, extreme)
            assert call(runner, plane, "PUT", "/configuration", body) < 500
            assert call(runner, plane, "GET", "/configuration", None) == 200
            assert call(runner, plane, "GET", "/history", None) == 200

        check()
        require_whole(runner, plane, tmp_path)
