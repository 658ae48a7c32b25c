"""`penumbra apply` on real processes: what is added serves, what is revoked is refused, at once."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from penumbra.deployments.config.loader import load
from penumbra.serve.cli.file_difference import difference_lines
from penumbra.serve.cli.main import app
from tests.support.behaviours import engine
from tests.support.control_process import ADMIN, GATEWAY, ControlProcess, external
from tests.support.engine_wire import Engine
from tests.support.gateway_process import GatewayProcess, eventually, key_settings
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream

GATEWAYS = 4
REQUESTS_PER_SECOND = 200
REVOKED_SECONDS = 1.0


@pytest.fixture
def builds() -> Iterator[dict[str, str]]:
    """Name -> URL of servers that run already."""
    found = [
        ScriptedUpstream(name, engine(Engine(name, created=number)))
        for number, name in enumerate(("full", "int8", "int4"), start=1)
    ]
    for build in found:
        build.start()
    yield {build.name: build.url for build in found}
    for build in found:
        build.stop()


class Fleet:
    """One control process and the gateway processes of one machine, as `penumbra up` runs them."""

    def __init__(self, folder: Path, builds: dict[str, str], keys: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.file = folder / "proposed.yaml"
        self.builds = builds
        self.control = ControlProcess(folder)
        self.models = {"demo": external(full=builds["full"], int8=builds["int8"])}
        self.keys = keys
        self.control.configure(self.models, keys=keys, gateway={"processes": GATEWAYS})
        self.gateways = [
            GatewayProcess(
                {
                    "control_url": self.control.url,
                    "gateway_id": f"gateway-{number}",
                    "processes": GATEWAYS,
                    "keys": keys,
                    "keys_file": str(folder / f"gateway-{number}-keys.json"),
                    "snapshot": {"epoch": 0, "models": self.models},
                },
                folder,
                {"PENUMBRA_GATEWAY_TOKEN": GATEWAY},
            )
            for number in range(GATEWAYS)
        ]

    def apply(self, *arguments: str) -> Result:
        """Run `penumbra apply` on a file with `models` and `keys`."""
        content = {
            "models": self.models,
            "keys": self.keys,
            "gateway": {"processes": GATEWAYS},
            "control": {"port": self.control.port},
        }
        self.file.write_text(yaml.safe_dump(content, sort_keys=False))
        environment = {"PENUMBRA_ADMIN_TOKEN": ADMIN, "PENUMBRA_ACTOR": "ann"}
        environment["PENUMBRA_ADMIN_URL"] = self.control.url
        return CliRunner().invoke(app, ["apply", "-f", str(self.file), *arguments], env=environment)

    def status(self, gateway: GatewayProcess, key: str, model: str = "demo") -> int:
        body = chat(model)
        headers = {"authorization": f"Bearer {key}"}
        return gateway.post(CHAT, body, headers).status


@contextmanager
def running(folder: Path, builds: dict[str, str], *keys: dict[str, Any]) -> Iterator[Fleet]:
    fleet = Fleet(folder, builds, list(keys))
    with ExitStack() as stack:
        stack.enter_context(fleet.control)
        for gateway in fleet.gateways:
            gateway.start(wait=False)
            stack.callback(gateway.stop)
        for gateway in fleet.gateways:
            gateway.wait_until_ready()
        yield fleet


class Load:
    """Requests at a steady rate over kept connections, one thread to a gateway process."""

    def __init__(self, fleet: Fleet, key: str) -> None:
        self.statuses: Counter[int] = Counter()
        self._fleet = fleet
        self._key = key
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(gateway,)) for gateway in fleet.gateways
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(30.0)

    def await_more(self, count: int = REQUESTS_PER_SECOND // 2) -> None:
        """Wait until so many more requests are answered."""
        wanted = self.statuses.total() + count
        eventually(lambda: self.statuses.total() >= wanted, what=f"{count} answers")

    def _ask(self, gateway: GatewayProcess) -> None:
        pause = GATEWAYS / REQUESTS_PER_SECOND
        body = json.dumps(chat()).encode()
        headers = {"authorization": f"Bearer {self._key}"}
        due = time.monotonic()
        with gateway.connect() as client:
            while not self._is_over.is_set():
                client.send_request(CHAT, body, headers)
                status = client.read_response().status
                with self._lock:
                    self.statuses[status] += 1
                due += pause
                time.sleep(max(0.0, due - time.monotonic()))


@pytest.mark.timeout(180)
def test_no_request_fails_while_a_key_a_variant_and_a_model_are_added(
    tmp_path: Path, builds: dict[str, str]
) -> None:
    with running(tmp_path, builds, key_settings("acme", "sk-acme")) as fleet:
        with Load(fleet, "sk-acme") as load:
            load.await_more()
            fleet.keys = [*fleet.keys, key_settings("globex", "sk-globex")]
            done = fleet.apply("--reason", "globex begins")
            assert done.stdout.endswith(f"is in force: acknowledged {GATEWAYS}/{GATEWAYS}.\n")
            load.await_more()
            fleet.models = {"demo": external(**builds)}
            assert fleet.apply().exit_code == 0
            load.await_more()
            fleet.models["other"] = external(full=builds["int4"])
            assert fleet.apply().exit_code == 0
            load.await_more()
        assert set(load.statuses) == {200}, load.statuses
        for gateway in fleet.gateways:
            assert fleet.status(gateway, "sk-globex") == 200
            assert fleet.status(gateway, "sk-globex", "other") == 200
        assert [*fleet.control.get("/flags/demo")["variants"]] == ["full", "int8", "int4"]


@pytest.mark.timeout(180)
def test_a_revoked_key_is_refused_by_all_gateways_within_a_second(
    tmp_path: Path, builds: dict[str, str]
) -> None:
    keys = key_settings("acme", "sk-acme"), key_settings("acme", "sk-leaked")
    with running(tmp_path, builds, *keys) as fleet, ExitStack() as stack:
        kept = [stack.enter_context(gateway.connect()) for gateway in fleet.gateways]

        def statuses(key: str) -> list[int]:
            body = json.dumps(chat()).encode()
            for client in kept:
                client.send_request(CHAT, body, {"authorization": f"Bearer {key}"})
            return [client.read_response().status for client in kept]

        assert statuses("sk-leaked") == [200] * GATEWAYS
        fleet.keys = [keys[0]]
        began = time.monotonic()
        answer = fleet.control.propose(fleet.models, keys=fleet.keys)
        assert answer.json()["gateways"] == {"connected": GATEWAYS, "acknowledged": GATEWAYS}
        assert statuses("sk-leaked") == [401] * GATEWAYS
        assert time.monotonic() - began < REVOKED_SECONDS
        assert statuses("sk-acme") == [200] * GATEWAYS


@pytest.mark.timeout(180)
def test_a_leaked_key_is_revoked_by_a_command_that_reads_no_file(
    tmp_path: Path, builds: dict[str, str]
) -> None:
    keys = key_settings("acme", "sk-acme"), key_settings("acme", "sk-leaked")
    with running(tmp_path, builds, *keys) as fleet:
        environment = {"PENUMBRA_ADMIN_TOKEN": ADMIN, "PENUMBRA_ADMIN_URL": fleet.control.url}

        def keys_command(*arguments: str) -> Result:
            return CliRunner().invoke(app, ["keys", *arguments], env=environment)

        assert fleet.status(fleet.gateways[0], "sk-leaked") == 200
        done = keys_command("revoke", "sk-leaked", "--reason", "it stood in a repository")
        assert done.exit_code == 0, done.output
        assert f"live on {GATEWAYS}/{GATEWAYS} gateways" in done.stdout
        for gateway in fleet.gateways:
            assert fleet.status(gateway, "sk-leaked") == 401
            assert fleet.status(gateway, "sk-acme") == 200
        left = json.loads(keys_command("list", "--json").stdout)["keys"]
        assert [found["key_id"] for found in left] == [keys[0]["sha256"][:12]]
        again = keys_command("revoke", "sk-leaked", "--reason", "again")
        assert (again.exit_code, left[0]["key_id"] in again.output) == (1, True)


@pytest.mark.timeout(180)
def test_a_gateway_that_was_away_has_the_keys_when_it_is_back(
    tmp_path: Path, builds: dict[str, str]
) -> None:
    keys = key_settings("acme", "sk-acme"), key_settings("acme", "sk-leaked")
    with running(tmp_path, builds, *keys) as fleet:
        away = fleet.gateways[0]
        away.stop()
        fleet.keys = [keys[0]]
        assert fleet.apply("--yes").exit_code == 0
        away.start()
        assert fleet.status(away, "sk-leaked") == 401
        assert fleet.status(away, "sk-acme") == 200
        # Also when the control process has been started again since, with the file of before.
        fleet.control.stop()
        fleet.control.start()
        assert fleet.status(away, "sk-leaked") == 401
        # And when it is started again while no control process answers.
        fleet.control.stop()
        away.stop()
        away.start()
        assert fleet.status(away, "sk-leaked") == 401
        assert fleet.status(away, "sk-acme") == 200


@pytest.mark.timeout(120)
def test_the_same_file_is_no_change_and_a_dry_run_makes_none(control: ControlProcess) -> None:
    fleet = Fleet.__new__(Fleet)
    fleet.control, fleet.file = control, control.config.with_name("proposed.yaml")
    fleet.models, fleet.keys = {"demo": external()}, []
    plan = fleet.apply("--dry-run")
    assert plan.exit_code == 0, plan.output
    assert plan.stdout.startswith("! ~ keys: so far each gateway has those of its file;")
    assert "Settings of the machine, which take effect at the next start:\n" in plan.stdout
    assert f"    gateway.processes: 1 -> {GATEWAYS}\n" in plan.stdout
    assert control.get("/configuration")["epoch"] == 1
    unasked = fleet.apply()
    assert unasked.exit_code == 1
    assert "give --yes" in unasked.stderr
    assert fleet.apply("--yes").stdout.endswith(
        "Epoch 2 is durable; no gateway is connected, each gets it when it connects.\n"
    )
    again = fleet.apply()
    assert again.stdout.startswith("Nothing to change: epoch 2 has all of it in force already.\n")
    assert control.get("/configuration")["epoch"] == 2
    [item] = control.get("/history?after=1")["items"]
    assert (item["actor"], item["reason"]) == ("ann", "penumbra apply -f proposed.yaml")


def test_up_tells_how_its_file_differs_from_what_is_in_force(
    control: ControlProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENUMBRA_ADMIN_TOKEN", ADMIN)
    assert difference_lines(load(control.config), control.config) == []
    control.configure({"demo": external(), "late": external()})
    lines = difference_lines(load(control.config), control.config)
    assert lines[1] == f"  penumbra apply -f {control.config}"
    assert lines[2:] == ["  + model late: baseline full, variants full, int8"]
    assert control.get("/configuration")["epoch"] == 1


@pytest.mark.timeout(120)
def test_the_process_that_takes_over_serves_what_was_applied(
    tmp_path: Path, builds: dict[str, str]
) -> None:
    first = ControlProcess(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    with first:
        plan = first.propose({"demo": external(**builds)}, dry_run=True).json()
        first.kill()
        standby = ControlProcess(other, settings={"store": f"sqlite:///{first.store_file}"})
        with standby:
            models = {"demo": external(**builds)}
            answer = standby.propose(
                models, keys=[key_settings("acme", "sk")], expected_epoch=plan["epoch"]
            )
            assert answer.json()["changed"], answer.text
            standby.kill()
        with ControlProcess(other, settings={"store": f"sqlite:///{first.store_file}"}) as third:
            view = third.get("/configuration")
            assert [*view["models"]["demo"]["variants"]] == ["full", "int8", "int4"]
            assert [key["tenant"] for key in view["keys"]] == ["acme"]
            assert not third.propose(models, expected_epoch=view["epoch"]).json()["changed"]
