"""The alert webhook of the real control process, across restarts: a firing acts once."""

import sqlite3
from pathlib import Path
from typing import Any

import httpx

from tests.support.alerts import alert, notification
from tests.support.control_process import ADMIN, ALERT, OPERATOR, ControlProcess, external

SPEC = {
    "model": "demo",
    "candidate": "int8",
    "stages": ["shadow", 10, 100],
    "guardrails": [{"signal": "displacement", "tolerance": 0.3, "action": "rollback", "share": 1}],
}


def bring(control: ControlProcess, given: dict[str, Any], token: str = ALERT) -> httpx.Response:
    return control.client.post(
        "/alerts", json=notification(given), headers={"authorization": f"Bearer {token}"}
    )


def result(control: ControlProcess, given: dict[str, Any]) -> str:
    answer = bring(control, given)
    assert answer.status_code == 200, answer.text
    (outcome,) = answer.json()["results"]
    found: str = outcome["result"]
    return found


def test_a_firing_acts_once_through_restarts_and_a_re_arming(control: ControlProcess) -> None:
    body = {"spec": SPEC, "reason": "try"}
    operator = {"authorization": f"Bearer {OPERATOR}"}
    control.client.put("/rollouts", json=body, headers=operator).raise_for_status()
    assert result(control, alert()) == "acted"
    control.kill()
    control.start()
    assert control.get("/rollouts/int8?model=demo")["stage"] == "rolled_back"
    assert result(control, alert()) == "already_acted"
    control.post("/rollouts/int8/rearm?model=demo", {}).raise_for_status()
    control.kill()
    control.start()
    assert result(control, alert()) == "already_acted"
    assert control.get("/rollouts/int8?model=demo")["stage"] == "shadow"
    assert result(control, alert(starts_at="2026-01-01T12:00:00Z")) == "acted"
    actors = [item["actor"] for item in control.get("/history?model=demo")["items"]]
    assert actors.count("alertmanager") == 2


def test_a_share_by_hand_is_taken_away(control: ControlProcess) -> None:
    control.split(30)
    assert result(control, alert()) == "acted"
    assert control.get("/flags/demo")["flag"]["blocked"] == ["int8"]


def test_the_token_is_for_the_webhook_only(control: ControlProcess) -> None:
    assert bring(control, alert(), OPERATOR).status_code == 403
    assert bring(control, alert(), ADMIN).status_code == 200
    assert control.post("/flags/demo/kill", {}, ALERT).status_code == 401
    assert ALERT not in control.log_text()


def test_a_store_of_the_release_before_gets_what_the_webhook_needs(tmp_path: Path) -> None:
    with ControlProcess(tmp_path, {"demo": external()}) as control:
        control.split(30)
        control.stop()
        _forget_alerts(control.store_file)
        control.start()
        assert result(control, alert()) == "acted"


def _forget_alerts(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("drop table alerts")
        connection.execute("update alembic_version set version_num = '0002'")
    connection.close()
