"""Users' judgements through real gateways into the store of a real control process."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from penumbra.router.link.feedback import PATH
from tests.support.behaviours import engine
from tests.support.control_process import GATEWAY, ControlProcess, external
from tests.support.engine_wire import Engine
from tests.support.gateway_process import GatewayProcess, eventually, key_settings
from tests.support.raw_client import RawResponse
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream

ACME, OTHER = "key-of-acme", "key-of-another-tenant"


class Installation:
    """One control process, two gateways."""

    def __init__(self, control: ControlProcess, gateways: list[GatewayProcess]) -> None:
        self.control = control
        self.gateways = gateways

    def served(self, gateway: int = 0) -> str:
        """A request of acme's; its id."""
        answer = self.gateways[gateway].post(CHAT, chat(), bearer(ACME))
        assert answer.status == 200
        return answer.header("x-request-id") or ""

    def judge(
        self, request_id: str, gateway: int = 0, key: str = ACME, **judgement: Any
    ) -> RawResponse:
        body = {"request_id": request_id, **(judgement or {"thumb": "down"})}
        return self.gateways[gateway].post(PATH, body, bearer(key))

    def stored(self) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.control.store_file)) as store:
            return [json.loads(row[0]) for row in store.execute("select judgement from feedback")]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder: Path = tmp_path_factory.mktemp("feedback")
    build = ScriptedUpstream("full", engine(Engine("full", created=1)))
    build.start()
    demo = external(full=build.url, int8="http://127.0.0.1:2")
    with ExitStack() as stack:
        stack.callback(build.stop)
        control = stack.enter_context(ControlProcess(folder, {"demo": demo}))
        settings = {
            "control_url": control.url,
            "snapshot": {"epoch": 0, "models": {"demo": demo}},
            "keys": [key_settings("acme", ACME), key_settings("other", OTHER)],
        }
        gateways = [
            stack.enter_context(
                GatewayProcess(
                    {**settings, "gateway_id": f"gateway-{number}"},
                    folder,
                    {"PENUMBRA_GATEWAY_TOKEN": GATEWAY},
                )
            )
            for number in range(2)
        ]
        eventually(
            lambda: len(control.get("/gateways")["gateways"]) == len(gateways),
            timeout=15.0,
            what="the gateways to be connected",
        )
        yield Installation(control, gateways)


@pytest.mark.parametrize("gateway", [0, 1])
def test_a_judgement_is_durable_when_it_is_answered_whichever_gateway_takes_it(
    installation: Installation, gateway: int
) -> None:
    request_id = installation.served(gateway=0)
    answer = installation.judge(
        request_id, gateway, score=0.25, escalated=True, metadata={"ticket": 7}
    )
    assert answer.status == 200, answer.body
    assert answer.json() == {
        "object": "feedback",
        "request_id": request_id,
        "model": "demo",
        "variant": "full",
        "slice": "other",
    }
    [row] = [row for row in installation.stored() if row["request_id"] == request_id]
    assert (row["tenant"], row["model"], row["variant"]) == ("acme", "demo", "full")
    assert (row["thumb"], row["score"], row["is_escalated"]) == (None, 0.25, True)
    assert row["metadata"] == {"ticket": 7}


def test_the_same_judgement_again_is_the_same_and_another_one_is_refused(
    installation: Installation,
) -> None:
    request_id = installation.served()
    assert installation.judge(request_id, 0, thumb="up").status == 200
    assert installation.judge(request_id, 1, thumb="up").status == 200
    answer = installation.judge(request_id, 1, thumb="down")
    assert (answer.status, answer.error["code"]) == (409, "feedback_exists")
    [row] = [row for row in installation.stored() if row["request_id"] == request_id]
    assert row["thumb"] is True


@pytest.mark.parametrize("gateway", [0, 1])
def test_a_request_that_no_gateway_remembers_is_not_found(
    installation: Installation, gateway: int
) -> None:
    answer = installation.judge("req-unknown", gateway)
    assert (answer.status, answer.error["code"]) == (404, "request_not_found")
    assert answer.error["param"] == "request_id"


@pytest.mark.parametrize("gateway", [0, 1])
def test_a_tenant_cannot_judge_another_tenants_request(
    installation: Installation, gateway: int
) -> None:
    request_id = installation.served(gateway=0)
    answer = installation.judge(request_id, gateway, key=OTHER)
    assert (answer.status, answer.error["code"]) == (404, "request_not_found")


def test_without_a_key_nothing_is_taken(installation: Installation) -> None:
    request_id = installation.served()
    answer = installation.judge(request_id, key="no such key")
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b'{"request_id": "a"}', 400, "invalid_request"),
        (b'{"request_id": "a", "thumb": "up", "more": 1}', 400, "invalid_request"),
        (b" " * 20_000, 413, "request_too_large"),
    ],
)
def test_what_is_no_judgement_is_refused(
    installation: Installation, body: bytes, status: int, code: str
) -> None:
    answer = installation.gateways[0].post(PATH, body, bearer(ACME))
    assert (answer.status, answer.error["code"]) == (status, code)


def test_without_the_control_process_it_is_to_be_sent_again(installation: Installation) -> None:
    request_id = installation.served()
    installation.control.kill()
    try:
        eventually(
            lambda: installation.judge(request_id).status == 503,
            timeout=15.0,
            what="the link to be down",
        )
        answer = installation.judge(request_id)
        assert (answer.status, answer.error["code"]) == (503, "control_unavailable")
        assert answer.header("retry-after") == "1"
    finally:
        installation.control.start()
    eventually(
        lambda: installation.judge(request_id).status == 200,
        timeout=15.0,
        what="the judgement to be taken",
    )
