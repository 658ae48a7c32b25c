"""Each replica's own address, as Ray Serve tells HAProxy; here with Ray's own classes' shapes."""

import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penumbra.deployments.config.replica_addresses import read_engines
from penumbra.serve.hosting.replica_targets import ReplicaNumbers, ReplicaTargets, addresses_of
from penumbra.serve.supervisor.replicas_file import ReplicasFile
from penumbra.serve.supervisor.state import Phase, VariantRecord


def group(app: str, *targets: tuple[str, str, int], protocol: str = "HTTP") -> Any:
    named = [SimpleNamespace(name=name, ip=ip, port=port) for name, ip, port in targets]
    return SimpleNamespace(app_name=app, protocol=SimpleNamespace(value=protocol), targets=named)


A, B, C = (f"SERVE_REPLICA::demo-full#demo-full#{name}" for name in "abc")


def test_replicas_are_told_apart_from_proxies_and_other_protocols() -> None:
    groups = [
        group("demo-full", (A, "10.0.0.1", 30000), (B, "fd00::2", 30000)),
        group("demo-full", (A, "10.0.0.1", 40000), protocol="gRPC"),
        group("demo-int8", ("SERVE_PROXY_ACTOR-1", "10.0.0.1", 8000)),
    ]
    assert addresses_of(groups, str) == {
        "demo-full": {A: "10.0.0.1:30000", B: "[fd00::2]:30000"},
        "demo-int8": {},
    }


def test_what_ray_does_not_tell_now_is_as_it_was() -> None:
    answers: list[Any] = [[group("demo-full", (A, "10.0.0.1", 30000))], [SimpleNamespace()], []]

    def ask() -> tuple[Iterable[Any], str]:
        return answers.pop(0), "10.0.0.9"

    targets = ReplicaTargets("127.0.0.1", is_local=False, ask=ask)
    known = {"demo-full": {A: "10.0.0.1:30000"}}
    assert targets.find() == known
    assert targets.find() == known  # not what Ray 2.60 has
    assert targets.find() == {}
    assert targets.find() == {}  # the call itself fails


@pytest.mark.parametrize(("is_local", "other"), [(True, "127.0.0.1"), (False, "10.0.0.2")])
def test_replicas_of_this_machine_are_reached_where_they_listen(is_local: bool, other: str) -> None:
    groups = [group("demo-full", (A, "10.0.0.1", 30000), (B, "10.0.0.2", 30001))]
    targets = ReplicaTargets("127.0.0.1", is_local=is_local, ask=lambda: (groups, "10.0.0.1"))
    assert targets.find() == {"demo-full": {A: "127.0.0.1:30000", B: f"{other}:30001"}}


def test_a_replica_keeps_its_number_and_its_successor_gets_it() -> None:
    numbers = ReplicaNumbers()
    assert numbers.assign("x", {B: "h:2", A: "h:1"}) == {"0": "h:1", "1": "h:2"}
    assert numbers.assign("x", {B: "h:2"}) == {"1": "h:2"}
    assert numbers.assign("x", {B: "h:2", C: "h:3"}) == {"0": "h:3", "1": "h:2"}
    assert numbers.assign("x", {}) == {}
    assert numbers.assign("y", {C: "h:9"}) == {"0": "h:9"}


def record(**changes: Any) -> VariantRecord:
    fields: dict[str, Any] = {
        "model": "demo",
        "variant": "full",
        "url": "http://127.0.0.1:8000/demo-full",
        "is_hosted": True,
        "phase": Phase.READY,
    }
    return VariantRecord(**(fields | changes))


def test_the_file_tells_the_control_process_where_replicas_are(tmp_path: Path) -> None:
    path = tmp_path / "replicas.json"
    file = ReplicasFile(path)
    located = record(addresses={"0": "10.0.0.1:30000"})
    file.write({"demo-full": located, "demo-int8": record(variant="int8")})
    told = read_engines(path)
    assert set(told["demo"]) == {"full"}
    assert told["demo"]["full"].path == "/demo-full/metrics"
    assert told["demo"]["full"].replicas == {"0": "10.0.0.1:30000"}
    written = path.stat().st_mtime_ns
    file.write({"demo-full": located.model_copy(update={"phase": Phase.RESTARTING})})
    assert path.stat().st_mtime_ns == written
    file.write({"demo-full": record()})
    assert json.loads(path.read_text()) == {}
    assert [file.name for file in tmp_path.iterdir()] == ["replicas.json"]
