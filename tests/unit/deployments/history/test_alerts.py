"""Alertmanager's webhook takes candidates out of service: each firing once, and nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from penumbra.deployments.api.access import Access, Role
from penumbra.deployments.api.alert_routes import alerts_router
from penumbra.deployments.api.app import build_api
from penumbra.deployments.control.alert_handler import AlertHandler
from penumbra.deployments.control.controller import Change, Clocks
from penumbra.deployments.control.rollout_service import RolloutService
from penumbra.deployments.errors import StoreUnavailable
from penumbra.deployments.history import operator_actions
from penumbra.deployments.history.alerts import Alert, Result
from penumbra.deployments.history.events import Event, Kind
from penumbra.deployments.history.flag_edits import add_pin, set_split
from penumbra.deployments.rollouts.record import Phase, Rollout
from penumbra.deployments.store.alert_tables import RETENTION
from penumbra.monitoring.telemetry import labels
from penumbra.router.bounds import SPEC_BODY_BYTES
from penumbra.router.flags.routing_table import Flag, Pin, Rule
from tests.support.alerts import FINGERPRINT, alert, notification
from tests.support.control_plane import FakeGateway, Plane, control_plane, split_change
from tests.support.rollouts import NOW, rollout_spec

KEY = ("demo", "int8")
TOKENS = {role: f"{role.name.lower()}-token" for role in Role}
ALERTS = "alert-token"
LATER = "2026-01-01T11:00:00Z"


@dataclass
class Webhook:
    """A control plane with the webhook in front of it, called without a socket."""

    plane: Plane
    now: datetime = NOW
    rollouts: RolloutService = field(init=False)
    handler: AlertHandler = field(init=False)
    client: httpx.AsyncClient = field(init=False)

    async def start(self, alert_token: str | None = ALERTS) -> None:
        """Start, or start again as after a restart of the process: only the store is kept."""
        clocks = Clocks(lambda: self.now, asyncio.get_running_loop().time)
        controller = self.plane.controller
        self.rollouts = RolloutService(controller, clocks, 1.0, "process-1")
        await self.rollouts.start()
        self.handler = AlertHandler(self.rollouts, controller, clocks.now)
        access = Access(TOKENS, "gateway-token", alert_token)
        app = build_api(controller, self.plane.publisher, access)
        app.include_router(alerts_router(self.handler, access))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://control")

    @property
    def counts(self) -> dict[str, int]:
        """Result -> number of alerts."""
        return self.plane.controller.metrics.alerts

    async def post(self, body: Any, token: str | None = ALERTS) -> httpx.Response:
        given = {"authorization": f"Bearer {token}"} if token else {}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(
            "/admin/v1/alerts",
            content=content,
            headers={"content-type": "application/json", **given},
        )

    async def bring(self, *alerts: dict[str, Any]) -> list[str]:
        """Send alerts; returns the result of each."""
        answer = await self.post(notification(*alerts))
        assert answer.status_code == 200, answer.text
        return [outcome["result"] for outcome in answer.json()["results"]]

    async def roll_out(self) -> Rollout:
        def make() -> Rollout:
            state = self.plane.controller.state
            return operator_actions.apply(state, rollout_spec(), "try", self.now, "run")

        return (await self.rollouts.put(make, "ann", "try")).rollout

    async def rearm(self) -> None:
        state = self.plane.controller.state
        await self.rollouts.change(
            KEY,
            lambda rollout: operator_actions.rearm(state, rollout, "fixed", self.now),
            "ann",
            "fixed",
        )

    @property
    def phase(self) -> Phase:
        return self.rollouts.rollout(KEY).record.phase

    @property
    def flag(self) -> Flag:
        return self.plane.controller.state.models["demo"].flag

    @property
    def epoch(self) -> int:
        return self.plane.controller.state.epoch

    def last(self) -> Event:
        return self.plane.store.latest(1)[0]


@pytest.fixture
async def webhook(tmp_path: Path) -> AsyncIterator[Webhook]:
    async with opened(tmp_path) as made:
        yield made


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Webhook]:
    async with control_plane(folder) as plane:
        made = Webhook(plane)
        await made.start()
        yield made
        await made.client.aclose()
        await made.rollouts.close()


# RolloutService


async def test_a_firing_alert_rolls_back_and_is_in_the_history(webhook: Webhook) -> None:
    gateway = await webhook.plane.connect(FakeGateway("g"))
    await webhook.roll_out()
    assert await webhook.bring(alert()) == ["acted"]
    await gateway.reach(webhook.epoch)
    assert gateway.tables[-1].models["demo"].flag.blocked == ("int8",)
    assert webhook.phase is Phase.ROLLED_BACK
    event = webhook.last()
    assert (event.actor, event.kind) == ("alertmanager", Kind.ROLLOUT)
    assert event.reason == (
        "PenumbraQualityRegression: int8 is worse than full"
        f" [alert {FINGERPRINT} since 2026-01-01T10:00:00.123456+00:00]"
    )


async def test_a_repeated_alert_changes_nothing(webhook: Webhook) -> None:
    await webhook.roll_out()
    await webhook.bring(alert())
    epoch = webhook.epoch
    assert await webhook.bring(alert(), alert()) == ["already_acted"] * 2
    assert webhook.epoch == epoch


async def test_the_same_firing_does_not_undo_a_re_arming_and_a_new_one_does(
    webhook: Webhook,
) -> None:
    await webhook.roll_out()
    await webhook.bring(alert())
    await webhook.rearm()
    assert await webhook.bring(alert()) == ["already_acted"]
    assert webhook.phase is Phase.SHADOW
    assert await webhook.bring(alert(starts_at=LATER)) == ["acted"]
    assert webhook.phase is Phase.ROLLED_BACK


async def test_what_was_dealt_with_is_known_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as webhook:
        await webhook.roll_out()
        await webhook.bring(alert())
        await webhook.rearm()
    async with opened(tmp_path) as webhook:
        assert await webhook.bring(alert()) == ["already_acted"]
        assert webhook.phase is Phase.SHADOW


async def test_a_firing_after_the_guards_own_rollback_does_not_undo_a_re_arming(
    webhook: Webhook,
) -> None:
    await webhook.roll_out()
    await webhook.rollouts.change(
        KEY, lambda rollout: operator_actions.rollback(rollout, "worse", NOW), "guard", "worse"
    )
    epoch = webhook.epoch
    assert await webhook.bring(alert()) == ["already_acted"]
    assert webhook.epoch == epoch
    await webhook.rearm()
    assert await webhook.bring(alert()) == ["already_acted"]
    assert webhook.phase is Phase.SHADOW


async def test_a_crash_between_the_rollback_and_the_note_of_it_acts_once(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    await webhook.roll_out()

    def fail(*_: object) -> None:
        raise StoreUnavailable("the store cannot be written: power cut")

    with monkeypatch.context() as patched:
        patched.setattr("penumbra.deployments.control.alert_handler.deal_with", fail)
        answer = await webhook.post(notification(alert()))
        assert (answer.status_code, webhook.phase) == (503, Phase.ROLLED_BACK)
    await webhook.rearm()
    await webhook.start()
    assert await webhook.bring(alert()) == ["already_acted"]
    assert webhook.phase is Phase.SHADOW


async def test_two_alertmanagers_at_once_act_once(webhook: Webhook) -> None:
    await webhook.roll_out()
    epoch = webhook.epoch
    results = await asyncio.gather(*(webhook.bring(alert()) for _ in range(4)))
    assert sorted(results) == [["acted"], *[["already_acted"]] * 3]
    assert webhook.epoch == epoch + 1


async def test_a_store_that_fails_is_a_503_and_the_next_try_acts(webhook: Webhook) -> None:
    await webhook.roll_out()
    webhook.plane.store.failures = [StoreUnavailable("the store cannot be written: disk full")]
    answer = await webhook.post(notification(alert(), alert(status="resolved")))
    assert answer.status_code == 503
    results = [outcome["result"] for outcome in answer.json()["results"]]
    assert results == ["failed", "resolved"]
    assert "disk full" in answer.json()["results"][0]["detail"]
    assert webhook.phase is Phase.SHADOW
    assert await webhook.bring(alert()) == ["acted"]


async def test_firings_of_long_ago_are_forgotten(webhook: Webhook) -> None:
    await webhook.roll_out()
    await webhook.bring(alert(fingerprint="aa"))
    webhook.now += RETENTION + timedelta(days=1)
    await webhook.bring(alert(fingerprint="bb"))
    rows = webhook.plane.store.look(
        lambda c: c.exec_driver_sql("select fingerprint from alerts").all()
    )
    assert [tuple(row) for row in rows] == [("bb",)]


# Shares by hand


async def put_flag(webhook: Webhook, flag: Flag) -> None:
    change = Change(Kind.SET, "ann", "by hand", {"demo": lambda _flag, _model: flag})
    await webhook.plane.controller.apply(change)


@pytest.mark.parametrize(
    "flag",
    [
        Flag(split={"int8": 20.0}),
        Flag(pins=(Pin(kind="tenant", subject="acme", variant="int8"),)),
        Flag(rules=(Rule(name="r", match={"tenants": ("acme",)}, variant="int8"),)),
        Flag(rules=(Rule(name="r", match={"tenants": ("acme",)}, split={"int8": 5.0}),)),
    ],
)
async def test_a_candidate_without_rollout_is_blocked_in_the_flag(
    webhook: Webhook, flag: Flag
) -> None:
    await put_flag(webhook, flag)
    assert await webhook.bring(alert()) == ["acted"]
    assert webhook.flag == flag.model_copy(update={"blocked": ("int8",)})
    event = webhook.last()
    assert (event.actor, event.kind) == ("alertmanager", Kind.SET)
    assert await webhook.bring(alert(starts_at=LATER)) == ["already_acted"]


async def test_a_block_that_an_admin_took_back_stays_back_until_a_new_firing(
    webhook: Webhook,
) -> None:
    flag = Flag(split={"int8": 20.0})
    await put_flag(webhook, flag)
    await webhook.bring(alert())
    await put_flag(webhook, flag)
    assert await webhook.bring(alert()) == ["already_acted"]
    assert webhook.flag == flag
    assert await webhook.bring(alert(starts_at=LATER)) == ["acted"]


async def test_a_candidate_without_traffic_is_acted_upon_once_it_has_some(
    webhook: Webhook,
) -> None:
    assert await webhook.bring(alert()) == ["no_action"]
    await webhook.plane.controller.apply(split_change(20))
    assert await webhook.bring(alert()) == ["acted"]


async def test_a_rollout_that_has_ended_leaves_it_to_the_flag(webhook: Webhook) -> None:
    await webhook.roll_out()
    await webhook.rollouts.change(
        KEY, lambda rollout: operator_actions.end(rollout, "done", NOW), "ann", "done"
    )
    pin = Pin(kind="tenant", subject="acme", variant="int8")
    edits = {"demo": add_pin(pin)}
    await webhook.plane.controller.apply(Change(Kind.PIN, "ann", "try", edits))
    assert await webhook.bring(alert()) == ["acted"]
    assert webhook.flag.blocked == ("int8",)


# What does nothing


@pytest.mark.parametrize(
    ("given", "result", "detail"),
    [
        (alert(status="resolved"), "resolved", ""),
        (alert(penumbra_action=None), "no_action", "penumbra_action"),
        (alert(penumbra_action="page"), "no_action", "penumbra_action"),
        (alert(model=None), "not_applicable", "label model: found ''"),
        (alert(model="nosuch"), "not_applicable", "wanted one of: demo"),
        (alert(candidate=None), "not_applicable", "label candidate: found ''"),
        (alert(candidate="nosuch"), "not_applicable", "found 'nosuch', wanted one of: int8"),
        (alert(candidate="full"), "not_applicable", "found 'full'"),  # the baseline
    ],
)
async def test_other_alerts_are_answered_counted_and_change_nothing(
    webhook: Webhook, given: dict[str, Any], result: str, detail: str
) -> None:
    await webhook.roll_out()
    epoch = webhook.epoch
    answer = await webhook.post(notification(given))
    (outcome,) = answer.json()["results"]
    assert (answer.status_code, outcome["result"]) == (200, result)
    assert detail in outcome["detail"]
    assert webhook.epoch == epoch
    assert webhook.counts[result] == 1
    assert sum(webhook.counts.values()) == 1


def test_the_results_are_those_of_the_registry() -> None:
    assert tuple(Result) == labels.RESULT.values


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "JSON"),
        (b"\xff", ""),
        (b"[]", "body"),
        ({}, "body.version: found nothing"),
        (notification(version="3"), 'body.version: found "3"'),
        (notification(alerts=None), "body.alerts: found null"),
        (notification({}), "body.alerts[0].status: found nothing"),
        (notification(alert(status="dozing")), 'alerts[0].status: found "dozing"'),
        (notification(alert(starts_at="soon")), 'alerts[0].startsAt: found "soon"'),
        (notification(alert(starts_at="2026-01-01T10:00:00")), "alerts[0].startsAt"),  # no zone
        (notification(alert(fingerprint="../x")), "alerts[0].fingerprint"),
        (notification(alert() | {"labels": {"model": 1}}), "alerts[0].labels.model: found 1"),
    ],
)
async def test_a_body_that_is_none_of_alertmanagers_is_a_400_that_says_where(
    webhook: Webhook, body: Any, text: str
) -> None:
    answer = await webhook.post(body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "request_invalid"), answer.text
    assert text in error["message"]
    assert sum(webhook.counts.values()) == 0


async def test_fields_of_newer_versions_pass(webhook: Webhook) -> None:
    await webhook.roll_out()
    body = notification(alert() | {"novelty": 1}, novelty={"a": []})
    assert (await webhook.post(body)).json()["results"][0]["result"] == "acted"


async def test_a_body_that_is_too_large_is_refused(webhook: Webhook) -> None:
    await webhook.roll_out()
    body = json.dumps(notification(alert(summary="x" * SPEC_BODY_BYTES))).encode()
    answer = await webhook.post(body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert webhook.phase is Phase.SHADOW


def test_a_reason_is_short_and_printable_whatever_an_alert_says() -> None:
    nasty = "a\r\nb\x1b[31m\u202e\u2028" + "c" * 5000
    given = alert(summary=nasty, alertname="N\x00ame")
    reason = Alert.model_validate(given).reason
    assert reason.isprintable()
    assert reason.startswith("N ame: a b [31m c")
    assert reason.endswith("since 2026-01-01T10:00:00.123456+00:00]")
    assert len(reason) < 400


# Who may


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        (None, 401, "unauthorized"),
        ("wrong", 401, "unauthorized"),
        ("gateway-token", 401, "unauthorized"),
        (TOKENS[Role.VIEWER], 403, "forbidden"),
        (TOKENS[Role.OPERATOR], 403, "forbidden"),
    ],
)
async def test_other_tokens_bring_no_alerts(
    webhook: Webhook, token: str | None, status: int, code: str
) -> None:
    await webhook.roll_out()
    # The token is looked at first: what the body is does not matter.
    for body in (notification(alert()), b"{", b"x" * (SPEC_BODY_BYTES + 1)):
        answer = await webhook.post(body, token)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert webhook.phase is Phase.SHADOW


async def test_an_admin_may(webhook: Webhook) -> None:
    await webhook.roll_out()
    answer = await webhook.post(notification(alert()), TOKENS[Role.ADMIN])
    assert answer.json()["results"][0]["result"] == "acted"


@pytest.mark.parametrize("path", ["/flags", "/history", "/gateways", "/rollouts"])
async def test_the_alert_token_is_good_for_nothing_else(webhook: Webhook, path: str) -> None:
    headers = {"authorization": f"Bearer {ALERTS}"}
    if path == "/rollouts":
        answer = await webhook.client.post("/admin/v1/flags/demo/kill", headers=headers, json={})
        assert answer.status_code in (400, 401)
        body = {"reason": "x"}
        answer = await webhook.client.post("/admin/v1/flags/demo/kill", headers=headers, json=body)
    else:
        answer = await webhook.client.get(f"/admin/v1{path}", headers=headers)
    assert answer.status_code == 401
    assert not Access(TOKENS, "gateway-token", ALERTS).is_gateway(f"Bearer {ALERTS}")


@pytest.mark.parametrize("token", [None, ALERTS, TOKENS[Role.ADMIN]])
async def test_without_an_alert_token_there_is_no_webhook(
    webhook: Webhook, token: str | None
) -> None:
    await webhook.start(alert_token=None)
    answer = await webhook.post(notification(alert()), token)
    assert answer.status_code == 403
    assert "PENUMBRA_ALERT_TOKEN" in answer.json()["error"]["message"]


async def test_the_openapi_document_describes_it(webhook: Webhook) -> None:
    document = (await webhook.client.get("/openapi.json")).json()
    operation = document["paths"]["/admin/v1/alerts"]["post"]
    assert operation["security"] == [{"AlertToken": []}]
    assert set(operation["responses"]) >= {"200", "400", "401", "403", "413", "503"}
    schema = document["components"]["schemas"]["Alert"]
    assert {"status", "labels", "startsAt", "fingerprint"} == set(schema["required"])


async def test_an_edit_by_hand_of_another_share_is_left_alone(webhook: Webhook) -> None:
    await webhook.plane.controller.apply(
        Change(Kind.SPLIT, "ann", "try", {"demo": set_split({"int8": 10.0})})
    )
    assert await webhook.bring(alert(candidate="nosuch")) == ["not_applicable"]
    assert webhook.flag.split == {"int8": 10.0}
