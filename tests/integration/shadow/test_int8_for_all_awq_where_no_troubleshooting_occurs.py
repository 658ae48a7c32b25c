"""INT8 live for all requests, AWQ live where the slice `troubleshooting` does not occur.

Real processes: a control process, a comparator, and a gateway before three scripted builds. Each
candidate goes live by its own evidence, in its own slices; AWQ is rolled back by evidence, and INT8
stays as it was.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.alike_builds import QUICK_SPEC, alike_builds
from tests.support.comparator_process import comparator
from tests.support.control_process import GATEWAY, OPERATOR, ControlProcess, external
from tests.support.engine_probe import probed, scoring
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream

LONGEST_SECONDS = 120.0
BEGINNINGS = {"troubleshooting": "My printer", "code": "def", "other": "Say"}
SLICES = [
    {"name": name, "match": {"prompt_prefix": [beginning]}}
    for name, beginning in BEGINNINGS.items()
    if name != "other"
]
INT8 = QUICK_SPEC | {
    "stages": ["shadow", 50],
    "candidates": 2,
    # It is never compared on code, so it is never proven there.
    "mirror": {"generate": 1, "aa": 0, "slices": {"code": 0}},
    "required_slices": ["troubleshooting", "other"],
}
AWQ = QUICK_SPEC | {
    "candidate": "awq",
    "stages": ["shadow", 50],
    "candidates": 2,
    "scope": {"slices": ["code", "other"]},
}
Answer = tuple[str | None, str | None]
"""The variant that answered, and the reason."""


@dataclass
class Plane:
    """A control process, a comparator and a gateway before three builds."""

    control: ControlProcess
    gateway: GatewayProcess
    _numbers: Any = field(default_factory=itertools.count)

    def ask(self, slice_name: str, number: int | None = None) -> Answer:
        """Ask something of a slice: something new, or what has this number."""
        asked = f"{BEGINNINGS[slice_name]} {next(self._numbers) if number is None else number}"
        body = chat(messages=[{"role": "user", "content": asked}])
        response = self.gateway.post(CHAT, body)
        assert response.status == 200
        return response.header("x-penumbra-variant"), response.header("x-penumbra-reason")

    def answers(self, slice_name: str, first: int, count: int = 60) -> list[Answer]:
        """Ask what has these numbers."""
        return [self.ask(slice_name, number) for number in range(first, first + count)]

    def apply(self, spec: dict[str, Any]) -> None:
        answer = self.control.client.put(
            "/rollouts",
            json={"spec": spec, "reason": "try"},
            headers={"authorization": f"Bearer {OPERATOR}"},
        )
        assert answer.status_code == 200, answer.text

    def view(self, candidate: str) -> Any:
        return self.control.get(f"/rollouts/{candidate}?model=demo")

    def ask_until(self, *wanted: tuple[str, str]) -> None:
        """Ask in all slices in turn until each of (slice, variant) was seen."""
        missing, deadline = set(wanted), time.monotonic() + LONGEST_SECONDS
        while missing:
            for slice_name in BEGINNINGS:
                missing.discard((slice_name, self.ask(slice_name)[0] or ""))
            told = {name: self.view(name) for name in ("int8", "awq")} if missing else {}
            assert time.monotonic() < deadline, (missing, told)


@pytest.fixture
def builds() -> Iterator[dict[str, ScriptedUpstream]]:
    with alike_builds("int8", "awq") as found:
        yield found


@contextlib.asynccontextmanager
async def plane(folder: Path, builds: dict[str, ScriptedUpstream]) -> AsyncIterator[Plane]:
    model = external(**{name: build.url for name, build in builds.items()}) | {"slices": SLICES}
    models = {"demo": model}
    with contextlib.ExitStack() as stack:
        control = ControlProcess(folder, models)
        await asyncio.to_thread(stack.enter_context, control)
        async with comparator(folder, control.url, token=GATEWAY) as compared:
            settings = {
                "control_url": control.url,
                "snapshot": {"epoch": 0, "models": models},
                "shadow_socket": str(compared.socket_path),
            }
            gateway = GatewayProcess(settings, folder, {"PENUMBRA_GATEWAY_TOKEN": GATEWAY})
            await asyncio.to_thread(stack.enter_context, gateway)
            await asyncio.to_thread(
                eventually, lambda: "comparator_connected" in gateway.log_text()
            )
            yield Plane(control, gateway)


async def test_int8_is_live_for_all_and_awq_where_no_troubleshooting_occurs(
    tmp_path: Path, builds: dict[str, ScriptedUpstream]
) -> None:
    async with plane(tmp_path, builds) as running:
        await asyncio.to_thread(both_live, running)
        await asyncio.to_thread(awq_fails, running, builds["awq"])


def both_live(running: Plane) -> None:
    """Bring both candidates live, each in its own slices."""
    running.apply(INT8)
    running.apply(AWQ)
    running.ask_until(
        ("troubleshooting", "int8"), ("other", "int8"), ("code", "awq"), ("other", "awq")
    )
    flag = running.control.get("/flags/demo")["flag"]
    assert flag["split"] == {"int8": 50, "awq": 50}
    assert (flag["quarantined"], flag["quarantined_for"]) == (
        [],
        {"int8": ["code"], "awq": ["troubleshooting"]},
    )
    seen = {name: set(running.answers(name, 10_000)) for name in BEGINNINGS}
    # What the split gives to a candidate that may not answer goes to the baseline.
    assert seen["other"] == {("int8", "SPLIT"), ("awq", "SPLIT")}
    assert seen["troubleshooting"] == {("int8", "SPLIT"), ("full", "QUARANTINE")}
    assert seen["code"] == {("awq", "SPLIT"), ("full", "QUARANTINE")}
    view = running.view("awq")
    assert view["scope"] == "slices code|other"
    assert view["diagnostics"]["outside_scope"] == 0
    # Nothing of troubleshooting was compared for AWQ, and nothing of code for INT8.
    assert pairs_of(view).keys() == {"code", "other"}
    assert pairs_of(running.view("int8")).keys() == {"troubleshooting", "other"}
    # Each has half of alpha, so that it holds for both together.
    assert (view["guard_alpha"], view["model_alpha"]) == (0.005, 0.01)


def pairs_of(view: Any) -> dict[str, int]:
    """Slice -> observations of displacement."""
    [signal] = [each for each in view["signals"] if each["signal"] == "displacement"]
    counts: dict[str, int] = {}
    for stream in signal["slices"]:
        if stream["count"]:
            counts[stream["slice"]] = counts.get(stream["slice"], 0) + stream["count"]
    return counts


def awq_fails(running: Plane, awq: ScriptedUpstream) -> None:
    """Make AWQ worse: evidence takes it out of service, and INT8 answers whom it answered."""
    before = running.answers("other", 10_000)
    awq.on("/v1/completions", scoring(-3.0))
    deadline = time.monotonic() + LONGEST_SECONDS
    while running.view("awq")["stage"] != "rolled_back":
        for slice_name in BEGINNINGS:
            running.ask(slice_name)
        assert time.monotonic() < deadline, running.view("awq")
    assert running.view("awq")["cause"].startswith("displacement: ")
    assert running.view("int8")["stage"] in ("50", "promoted")
    after = running.answers("other", 10_000)
    assert after == [
        ("full", "GUARD") if variant == "awq" else (variant, reason) for variant, reason in before
    ]
    assert {variant for variant, _ in running.answers("code", 20_000)} == {"full"}
    assert set(running.answers("troubleshooting", 20_000)) == {("int8", "SPLIT"), ("full", "GUARD")}
    told = running.control.get("/rollouts/awq/explain?model=demo")
    assert (told["is_reproduced"], told["scope"]) == (True, "slices code|other")
    assert running.control.get("/flags/demo")["flag"]["quarantined_for"] == {"int8": ["code"]}


async def test_a_candidate_that_is_not_compared_any_more_takes_no_lease_from_the_other(
    tmp_path: Path, builds: dict[str, ScriptedUpstream]
) -> None:
    async with plane(tmp_path, builds) as running:
        await asyncio.to_thread(both_live, running)
        probed(builds["awq"], waiting=500)  # its engine is busy, and nothing is compared on it
        await asyncio.to_thread(lose_one_lease, running)


def lose_one_lease(running: Plane) -> None:
    """Ask until AWQ has no lease; INT8 answers on all along."""
    ended, deadline = {("full", "QUARANTINE"), ("full", "LEASE_EXPIRED")}, time.monotonic() + 120.0
    while running.ask("code")[0] == "awq" or set(running.answers("code", 10_000, 20)) != ended:
        answered = running.answers("troubleshooting", 10_000, 20)
        assert {variant for variant, _ in answered} == {"int8", "full"}
        assert time.monotonic() < deadline, running.control.get("/gateways")
    assert {variant for variant, _ in running.answers("other", 10_000)} == {"int8", "full"}
    [gateway] = running.control.get("/gateways")["gateways"]
    assert gateway["stopped"] == {"demo": ["awq"]}


async def test_what_does_not_fit_the_scope_is_refused(
    tmp_path: Path, builds: dict[str, ScriptedUpstream]
) -> None:
    def put(control: ControlProcess, **change: Any) -> str:
        answer = control.client.put(
            "/rollouts",
            json={"spec": AWQ | change, "reason": "try"},
            headers={"authorization": f"Bearer {OPERATOR}"},
        )
        assert answer.status_code in (400, 422)
        return str(answer.json()["error"]["message"])

    models = {"demo": external(full="http://127.0.0.1:1", awq="http://127.0.0.1:2")}
    models["demo"]["slices"] = SLICES
    del builds
    with ControlProcess(tmp_path, models) as control:
        assert "scope.slices: found" in put(control, scope={"slices": ["nosuch"]})
        assert "required_slices: found" in put(control, required_slices=["troubleshooting"])
        assert "found no condition" in put(control, scope={})
        assert "scope" in put(control, scope={"json_mode": True})
