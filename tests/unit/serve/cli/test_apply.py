"""`penumbra apply` waits for every gateway, also for one that is gone since."""

from typing import Any, cast

import pytest

from penumbra.serve.cli import apply
from penumbra.serve.cli.admin_client import AdminClient, AdminError

PLAN = {
    "epoch": 7,
    "steps": [],
    "changed": False,
    "gateways": {"connected": 0, "acknowledged": 0},
}


class Control:
    """A control process with these gateways: (epoch, whether it takes keys)."""

    def __init__(self, *gateways: tuple[int, bool], connected: int = 0) -> None:
        self._gateways = [{"epoch": epoch, "takes_keys": takes} for epoch, takes in gateways]
        self._connected = connected
        self.changes: list[dict[str, Any]] = []

    def get(self, path: str) -> Any:
        assert path == "/gateways"
        return {"gateways": self._gateways}

    def change(self, method: str, path: str, body: dict[str, Any]) -> Any:
        self.changes.append(body)
        if body.get("dry_run"):
            steps = [{"action": "add", "text": "a key", "hurts": False}] * bool(self._connected)
            return PLAN | {"steps": steps}
        counts = {"connected": self._connected, "acknowledged": 1}
        return PLAN | {"epoch": 8, "changed": True, "gateways": counts}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "_ARRIVAL_SECONDS", 0.0)


def run(control: Control, **proposal: Any) -> None:
    client = cast("AdminClient", control)
    apply._run(client, proposal, is_dry=False, is_agreed=True, as_json=False)


def test_all_gateways_have_it(capsys: pytest.CaptureFixture[str]) -> None:
    run(Control((8, True), (9, True), connected=2))
    assert "acknowledged 2/2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("control", "proposal"),
    [
        (Control((8, True), connected=2), {}),  # one is gone, and may serve on
        (Control((8, True), (7, True), connected=2), {}),
        (Control((8, True), (8, False), connected=2), {"keys": []}),
        (Control((7, True), (6, True)), {}),  # nothing to change, and one lacks it all the same
    ],
)
def test_a_gateway_that_lacks_it_is_told(control: Control, proposal: dict[str, Any]) -> None:
    with pytest.raises(AdminError, match="not every gateway has it"):
        run(control, **proposal)
