from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from penumbra.deployments.api.access import Access, Role
from penumbra.deployments.api.app import build_api
from penumbra.deployments.errors import StoreUnavailable
from penumbra.router.flags.evaluate import compile_model, evaluate
from penumbra.router.flags.routing_table import Flag, Snapshot
from tests.support.control_plane import FakeGateway, Plane, control_plane, payload, split_change
from tests.support.routing_tables import context, model

TOKENS = {role: f"{role.name.lower()}-token" for role in Role}
READS = ["/flags", "/flags/demo", "/history", "/snapshots/1", "/gateways", "/flagd", "/status"]
CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/flags/demo/kill", {}),
    ("POST", "/flags/demo/unkill", {}),
    ("POST", "/flags/demo/split", {"split": {"int8": 30}}),
    ("POST", "/flags/demo/pin", {"kind": "tenant", "subject": "acme", "variant": "int8"}),
    ("POST", "/flags/demo/unpin", {"kind": "tenant", "subject": "acme"}),
]
ADMIN_CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("PUT", "/flags/demo", {"flag": {"killed": True}}),
    ("PUT", "/flagd", {"flagd": {"flags": {}}}),
]


class Api:
    """The admin API, called without a socket."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        app = build_api(plane.controller, plane.publisher, Access(TOKENS, "gateway-token"))
        # An unhandled error is an answer, as it is with a server, not an exception here.
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://control")

    async def get(self, path: str, role: Role = Role.VIEWER) -> Any:
        answer = await self.call("GET", path, role=role)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        role: Role | None = Role.ADMIN,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        given = {"authorization": f"Bearer {TOKENS[role]}"} if role else {}
        return await self.client.request(
            method, f"/admin/v1{path}", json=body, headers=given | (headers or {})
        )

    async def change(self, method: str, path: str, body: Any, **options: Any) -> httpx.Response:
        return await self.call(method, path, {"reason": "test"} | body, **options)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    config = payload(demo=model(), **{"org/chat": model()})
    async with control_plane(tmp_path, config=config) as plane:
        api = Api(plane)
        yield api
        await api.client.aclose()


def assert_error(answer: httpx.Response, status: int, code: str, text: str = "") -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert text in error["message"]


@pytest.mark.parametrize("path", READS)
async def test_reading_needs_at_least_the_viewers_token(api: Api, path: str) -> None:
    assert_error(await api.call("GET", path, role=None), 401, "unauthorized")
    assert (await api.call("GET", path, role=Role.VIEWER)).status_code == 200


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
async def test_an_operator_may_flip_and_a_viewer_may_not(
    api: Api, method: str, path: str, body: dict[str, Any]
) -> None:
    for role, status in ((None, 401), (Role.VIEWER, 403)):
        assert (await api.change(method, path, body, role=role)).status_code == status
    assert api.plane.controller.state.epoch == 1
    allowed = await api.change(method, path, body, role=Role.OPERATOR)
    assert allowed.status_code in (200, 404)  # 404: no such pin yet


@pytest.mark.parametrize(("method", "path", "body"), ADMIN_CHANGES)
async def test_whole_flags_are_for_admins(
    api: Api, method: str, path: str, body: dict[str, Any]
) -> None:
    match = {"if-match": "1"}
    refused = await api.change(method, path, body, role=Role.OPERATOR, headers=match)
    assert_error(refused, 403, "forbidden")
    assert (await api.change(method, path, body, headers=match)).status_code == 200


async def test_a_change_returns_the_gateways_that_it_reached(api: Api) -> None:
    await api.plane.connect(FakeGateway("g0"))
    answer = await api.change("POST", "/flags/demo/split", {"split": {"int8": 30}})
    body = answer.json()
    assert body["epoch"] == 2
    assert body["changed"] is True
    assert body["gateways"] == {"connected": 1, "acknowledged": 1}
    assert body["durable_ms"] > 0
    assert body["propagation_ms"] > 0


async def test_history_has_actor_time_reason_and_flags(api: Api) -> None:
    await api.change(
        "POST", "/flags/demo/kill", {"reason": "latency"}, headers={"x-penumbra-actor": "Ann"}
    )
    await api.change("POST", "/flags/org/chat/kill", {})
    items = (await api.get("/history?model=demo"))["items"]
    assert len(items) == 1
    item = items[0]
    assert (item["actor"], item["reason"], item["kind"]) == ("Ann", "latency", "kill")
    assert (item["before"]["killed"], item["after"]["killed"]) == (False, True)
    assert item["epoch"] == 2
    assert item["at"].endswith("Z")
    everything = (await api.get("/history"))["items"]
    assert [item["kind"] for item in everything] == ["config", "kill", "kill"]
    assert [item["epoch"] for item in (await api.get("/history?after=1&limit=1"))["items"]] == [2]
    assert [item["epoch"] for item in (await api.get("/history?limit=1"))["items"]] == [3]


async def test_every_decision_can_be_replayed_from_the_history(api: Api) -> None:
    requests = [context(f"user-{number}") for number in range(50)]
    seen = []
    for share in (10, 50, 90):
        await api.plane.controller.apply(split_change(share))
        table = api.plane.controller.state.snapshot()
        live = compile_model("demo", table.models["demo"])
        seen.append((table.epoch, [evaluate(live, request) for request in requests]))
    for epoch, decisions in seen:
        replayed = Snapshot.model_validate(await api.get(f"/snapshots/{epoch}"))
        assert [evaluate(replayed, request) for request in requests] == decisions


@pytest.mark.parametrize("epoch", [0, 2, -1])
async def test_an_unknown_epoch_is_not_found(api: Api, epoch: int) -> None:
    assert_error(await api.call("GET", f"/snapshots/{epoch}"), 404, "not_found")


async def test_a_model_with_a_slash_in_its_name_is_reached(api: Api) -> None:
    assert (await api.get("/flags/org/chat"))["model"] == "org/chat"
    assert (await api.get("/flags/org%2Fchat"))["model"] == "org/chat"
    await api.change("POST", "/flags/org/chat/kill", {})
    assert (await api.get("/flags/org/chat"))["flag"]["killed"] is True


async def test_a_whole_flag_is_replaced_only_on_top_of_the_one_that_was_read(api: Api) -> None:
    flag = {"flag": {"split": {"int8": 5}}}
    assert_error(await api.change("PUT", "/flags/demo", flag), 428, "precondition_required")
    read = await api.call("GET", "/flags/demo")
    await api.change("POST", "/flags/demo/kill", {})
    stale = await api.change("PUT", "/flags/demo", flag, headers={"if-match": read.headers["etag"]})
    assert_error(stale, 409, "conflict", "changed in epoch 2, after epoch 1")
    fresh = await api.change("PUT", "/flags/demo", flag, headers={"if-match": '"2"'})
    assert fresh.json()["epoch"] == 3
    assert (await api.get("/flags/demo"))["flag"]["split"] == {"int8": 5}


async def test_a_verb_may_be_conditional_too(api: Api) -> None:
    await api.change("POST", "/flags/demo/kill", {})
    stale = await api.change("POST", "/flags/demo/unkill", {}, headers={"if-match": "1"})
    assert_error(stale, 409, "conflict")


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "text"),
    [
        ("/flags/demo/split", {"split": {"nosuch": 1}}, 422, "flag_invalid", "wanted one of int8"),
        ("/flags/demo/split", {"split": {"int8": 101}}, 422, "flag_invalid", "from 0 to 100"),
        ("/flags/demo/split", {"split": 1}, 400, "request_invalid", "body.split: found 1"),
        ("/flags/demo/split", {}, 400, "request_invalid", "body.split: found nothing"),
        ("/flags/demo/kill", {"reason": ""}, 400, "request_invalid", "body.reason"),
        ("/flags/demo/kill", {"reason": "  "}, 400, "request_invalid", "body.reason"),
        ("/flags/demo/kill", {"reason": "x", "y": 1}, 400, "request_invalid", "body.y"),
        ("/flags/nosuch/kill", {}, 404, "not_found", "wanted one of: demo, org/chat"),
        ("/flags/demo/unpin", {"kind": "key", "subject": "a"}, 404, "not_found", "no pin"),
        ("/flags/demo/explode", {}, 405, "method_not_allowed", ""),
        ("/nosuch", {}, 404, "route_not_found", ""),
    ],
)
async def test_a_refusal_has_the_openai_shape_and_a_reason(
    api: Api, path: str, body: dict[str, Any], status: int, code: str, text: str
) -> None:
    assert_error(await api.change("POST", path, body), status, code, text)
    assert api.plane.controller.state.epoch == 1


async def test_an_if_match_that_is_no_epoch_is_refused(api: Api) -> None:
    answer = await api.change("PUT", "/flags/demo", {"flag": {}}, headers={"if-match": "abc"})
    assert_error(answer, 400, "request_invalid", "wanted an epoch")


async def test_a_store_that_fails_is_a_503_and_changes_nothing(api: Api) -> None:
    api.plane.store.failures = [StoreUnavailable("the store cannot be written: disk is full")]
    answer = await api.change("POST", "/flags/demo/kill", {})
    assert_error(answer, 503, "store_unavailable", "disk is full")
    assert (await api.get("/flags/demo"))["flag"]["killed"] is False
    ready = await api.client.get("/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "behind the store")
    assert (await api.change("POST", "/flags/demo/kill", {})).status_code == 200
    assert (await api.client.get("/ready")).status_code == 200


async def test_an_internal_error_is_a_500_without_details(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(api.plane.controller, "apply", fail)
    answer = await api.change("POST", "/flags/demo/kill", {})
    assert_error(answer, 500, "internal")
    assert "secret" not in answer.text


async def test_flags_go_out_and_come_back_as_flagd_json(api: Api) -> None:
    await api.change("POST", "/flags/demo/split", {"split": {"int8": 30}})
    document = await api.get("/flagd")
    assert set(document["flags"]) == {"demo", "org/chat"}
    await api.change("POST", "/flags/demo/kill", {})
    imported = await api.change("PUT", "/flagd", {"flagd": document})
    assert imported.json()["changed"] is True
    flag = Flag.model_validate((await api.get("/flags/demo"))["flag"])
    assert flag == Flag(split={"int8": 30})
    assert set((await api.get("/flagd?model=demo"))["flags"]) == {"demo"}
    bad = {"flags": {"demo": {"defaultVariant": "int8"}}}
    refused = await api.change("PUT", "/flagd", {"flagd": bad})
    assert_error(refused, 422, "flag_invalid", "wanted full")


async def test_gateways_are_listed_with_their_epoch(api: Api) -> None:
    await api.plane.connect(FakeGateway("g1"))
    await api.plane.connect(FakeGateway("g0"))
    await api.change("POST", "/flags/demo/kill", {})
    body = await api.get("/gateways")
    assert body["epoch"] == 2
    assert [(view["gateway"], view["epoch"]) for view in body["gateways"]] == [("g0", 2), ("g1", 2)]
    assert all(view["last_propagation_ms"] > 0 for view in body["gateways"])


async def test_probes_need_no_token(api: Api) -> None:
    assert (await api.client.get("/health")).json() == {"status": "ok"}
    ready = (await api.client.get("/ready")).json()
    assert ready == {"status": "ready", "epoch": 1, "gateways": 0}


async def test_metrics_count_changes_and_gateways(api: Api) -> None:
    await api.plane.connect(FakeGateway("g0"))
    await api.change("POST", "/flags/demo/kill", {})
    api.plane.store.failures = [StoreUnavailable("disk full")]
    await api.change("POST", "/flags/demo/unkill", {})
    answer = await api.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    assert "penumbra_control_epoch 2.0" in lines
    assert "penumbra_control_gateways 1.0" in lines
    assert "penumbra_control_outdated_gateways 0.0" in lines
    assert 'penumbra_control_changes_total{kind="config"} 1.0' in lines
    assert 'penumbra_control_changes_total{kind="kill"} 1.0' in lines
    assert 'penumbra_control_changes_total{kind="unkill"} 0.0' in lines
    assert "penumbra_control_propagation_seconds_count 1.0" in lines
    assert "penumbra_control_store_failures_total 1.0" in lines


async def test_metrics_come_as_openmetrics_if_the_client_accepts_it(api: Api) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    answer = await api.client.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


async def test_the_openapi_document_lists_every_route(api: Api) -> None:
    document = (await api.client.get("/openapi.json")).json()
    assert {
        "/admin/v1/flags",
        "/admin/v1/flags/{model}",
        "/admin/v1/flags/{model}/kill",
        "/admin/v1/flags/{model}/unkill",
        "/admin/v1/flags/{model}/pin",
        "/admin/v1/flags/{model}/unpin",
        "/admin/v1/flags/{model}/split",
        "/admin/v1/flagd",
        "/admin/v1/history",
        "/admin/v1/snapshots/{epoch}",
        "/admin/v1/gateways",
        "/health",
        "/ready",
    } <= set(document["paths"])
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    admin = [path for path in document["paths"] if path.startswith("/admin")]
    assert all(
        operation["security"] == [{"HTTPBearer": []}]
        for path in admin
        for operation in document["paths"][path].values()
    )
