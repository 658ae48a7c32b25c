"""Discovery lists every process, by a name of its own, and for long enough."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.websockets import WebSocket, WebSocketState

from penumbra.deployments.api.link_route import SocketChannel
from penumbra.deployments.config.replica_addresses import (
    EngineAddresses,
    read_engines,
    write_engines,
)
from penumbra.deployments.gateways.link import Link, LinkClosed
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.metrics.discovery import Discovery, Target
from penumbra.deployments.metrics.process_registry import (
    ENDED_SECONDS,
    LOST_SECONDS,
    MOST_LOST,
    ProcessRegistry,
)
from penumbra.monitoring.telemetry import engine, labels
from penumbra.monitoring.telemetry.metric import Process
from penumbra.router.flags.routing_table import ModelSnapshot, Variant
from penumbra.router.link.messages import Hello
from tests.support.control_plane import FakeGateway, control_plane

HERE = "control-machine"


class Room:
    """A registry with a clock that the test moves."""

    def __init__(self, own: str = "127.0.0.1:8090", replicas: Path | None = None) -> None:
        self.now = 1000.0
        self.registry = ProcessRegistry(lambda: self.now, HERE)
        self.models: dict[str, ModelSnapshot] = {}
        self.discovery = Discovery(own, self.registry, lambda: self.models, replicas)

    def come(
        self,
        name: str,
        metrics: str,
        *,
        host: str = HERE,
        peer: str = "127.0.0.1",
        kind: Process = Process.GATEWAY,
    ) -> Link:
        hello = Hello(name, 1, "", 0, host, metrics)
        link = Link(hello, FakeGateway(name), self.now, peer)
        self.registry.connect(kind, link)
        return link

    def go(self, link: Link, *, has_ended: bool = False) -> None:
        link.has_ended = has_ended
        self.registry.disconnect(link)

    def named(self, kind: str = "gateway") -> dict[str, str]:
        """Process -> address, of one kind."""
        found = [target for target in self.discovery.targets() if target.kind == kind]
        return {target.process: target.address for target in found}


def of(**urls: str) -> ModelSnapshot:
    variants = {name: Variant(url=url) for name, url in urls.items()}
    return ModelSnapshot(baseline=next(iter(urls)), variants=variants)


def test_every_process_is_listed_in_the_form_of_prometheus() -> None:
    room = Room()
    room.come("gateway-0", "127.0.0.1:8100")
    room.come("comparator-0", "127.0.0.1:8095", kind=Process.COMPARATOR)
    room.models = {"demo": of(full="http://10.0.0.7:9000/base")}
    told = json.loads(json.dumps([target.group() for target in room.discovery.targets()]))
    assert told == [
        {
            "targets": ["127.0.0.1:8095"],
            "labels": {"process_kind": "comparator", "process": "comparator-0"},
        },
        {
            "targets": ["127.0.0.1:8090"],
            "labels": {"process_kind": "control", "process": "control"},
        },
        {
            "targets": ["10.0.0.7:9000"],
            "labels": {
                "process_kind": "engine",
                "process": "demo-full-0",
                "model": "demo",
                "variant": "full",
                "replica": "0",
                "__metrics_path__": "/base/metrics",
            },
        },
        {
            "targets": ["127.0.0.1:8100"],
            "labels": {"process_kind": "gateway", "process": "gateway-0"},
        },
    ]


def test_the_kinds_are_those_of_the_registry() -> None:
    assert set(labels.PROCESS_KIND.values) == {
        *(process.value for process in Process),
        engine.PROCESS_KIND,
    }


def test_a_lost_process_stays_listed_for_a_while() -> None:
    room = Room()
    room.go(room.come("gateway-0", "127.0.0.1:8100"))
    room.now += LOST_SECONDS - 1
    assert room.named() == {"gateway-0": "127.0.0.1:8100"}
    room.now += 1
    assert room.named() == {}


def test_a_lost_process_is_a_target_without_a_link() -> None:
    room = Room()
    stays, goes = room.come("gateway-0", "10.0.0.1:8100"), room.come("gateway-1", "10.0.0.1:8101")
    room.go(goes)
    linked = {each.process: each.is_linked for each in room.discovery.targets()}
    assert linked == {"control": True, stays.hello.gateway: True, "gateway-1": False}


def test_a_process_that_ended_in_order_goes_soon() -> None:
    room = Room()
    room.go(room.come("gateway-0", "127.0.0.1:8100"), has_ended=True)
    assert room.named() == {"gateway-0": "127.0.0.1:8100"}
    room.now += ENDED_SECONDS
    assert room.named() == {}


def test_a_process_that_returns_takes_the_place_of_its_old_entry() -> None:
    room = Room()
    old = room.come("gateway-0", "127.0.0.1:8100")
    room.go(old)
    new = room.come("gateway-0", "127.0.0.1:8100")
    room.now += LOST_SECONDS + 1
    assert room.named() == {"gateway-0": "127.0.0.1:8100"}
    room.go(old)  # noticed late
    room.now += LOST_SECONDS + 1
    assert room.named() == {"gateway-0": "127.0.0.1:8100"}
    room.go(new)
    room.now += LOST_SECONDS
    assert room.named() == {}


def test_machines_are_told_apart_and_only_by_themselves() -> None:
    room = Room()
    room.come("gateway-0", "127.0.0.1:8100")
    room.come("gateway-0", "10.0.0.2:8100", host="b", peer="10.0.0.2")
    assert room.named() == {"gateway-0": "127.0.0.1:8100", "gateway-0@b": "10.0.0.2:8100"}


def test_two_processes_of_one_name_on_one_machine_are_told_apart_by_their_address() -> None:
    room = Room()
    room.go(room.come("gateway-0", "127.0.0.1:8100"))
    room.come("gateway-0", "127.0.0.1:8200")
    assert room.named() == {
        "gateway-0": "127.0.0.1:8200",  # the one that lives keeps its plain name
        "gateway-0@127.0.0.1:8100": "127.0.0.1:8100",
    }


def test_a_name_is_never_given_twice() -> None:
    room = Room()
    room.models = {"a-b": of(c="http://x:1"), "a": of(**{"b-c": "http://x:1", "d": "http://x:1"})}
    room.come("control", "127.0.0.1:1")
    room.come("a-d-0", "127.0.0.1:2")
    names = [target.process for target in room.discovery.targets()]
    assert len(set(names)) == len(names) == 6
    assert "control" in names


@pytest.mark.parametrize(
    ("told", "peer", "address"),
    [
        (":8100", "10.0.0.2", "10.0.0.2:8100"),
        (":8100", "fd00::2", "[fd00::2]:8100"),
        ("gateway.example:8100", "10.0.0.2", "gateway.example:8100"),
        ("[fd00::3]:8100", "10.0.0.2", "[fd00::3]:8100"),
    ],
)
def test_a_process_of_another_machine_has_the_address_that_reaches_it(
    told: str, peer: str, address: str
) -> None:
    room = Room()
    room.come("gateway-0", told, host="b", peer=peer)
    assert room.named() == {"gateway-0@b": address}


@pytest.mark.parametrize(
    ("told", "peer"),
    [
        ("", "10.0.0.2"),  # it has no metrics, or is of an older release
        (":8100", ""),
        ("127.0.0.1:8100", "10.0.0.2"),  # only the process itself reaches it there
        ("[::1]:8100", "10.0.0.2"),
        ("localhost:8100", "10.0.0.2"),
        ("nonsense", "10.0.0.2"),
        ("10.0.0.2:0", "10.0.0.2"),
        ("10.0.0.2:99999", "10.0.0.2"),
        ("10.0.0.2:80/../secret", "10.0.0.2"),
        ("user@10.0.0.2:80", "10.0.0.2"),
    ],
)
def test_a_process_that_cannot_be_scraped_is_not_listed(told: str, peer: str) -> None:
    room = Room()
    room.come("gateway-0", told, host="b", peer=peer)
    assert room.named() == {}


def test_lost_processes_with_ever_new_names_are_not_remembered_for_ever() -> None:
    room = Room()
    for number in range(MOST_LOST + 5):
        room.go(room.come("gateway-0", "10.0.0.2:8100", host=f"pod-{number}", peer="10.0.0.2"))
    names = room.named()
    assert len(names) == MOST_LOST
    assert f"gateway-0@pod-{MOST_LOST + 4}" in names


@pytest.mark.parametrize(
    ("own", "asked_at", "address"),
    [
        ("10.0.0.1:8090", "control.example", "10.0.0.1:8090"),
        (":8090", "control.example", "control.example:8090"),
        (":8090", "fd00::1", "[fd00::1]:8090"),
    ],
)
def test_the_control_process_is_where_it_was_asked(own: str, asked_at: str, address: str) -> None:
    found = Room(own).discovery.targets(asked_at)
    assert found == [Target(address, "control", "control")]


# Engines


def engines_of(room: Room) -> list[tuple[str, str, str]]:
    return [
        (target.process, target.address, target.path)
        for target in room.discovery.targets()
        if target.kind == "engine"
    ]


def test_each_replica_is_a_target_and_without_any_the_route_is(tmp_path: Path) -> None:
    file = tmp_path / "replicas.json"
    room = Room(replicas=file)
    room.models = {
        "demo": of(full="http://127.0.0.1:8000/demo-full", int8="http://127.0.0.1:8000/demo-int8")
    }
    by_route = ("demo-int8-0", "127.0.0.1:8000", "/demo-int8/metrics")
    assert engines_of(room) == [("demo-full-0", "127.0.0.1:8000", "/demo-full/metrics"), by_route]
    found = EngineAddresses(
        path="/demo-full/metrics", replicas={"0": "10.0.0.1:30000", "1": "10.0.0.1:30001"}
    )
    write_engines(file, {"demo": {"full": found}})
    assert engines_of(room) == [
        ("demo-full-0", "10.0.0.1:30000", "/demo-full/metrics"),
        ("demo-full-1", "10.0.0.1:30001", "/demo-full/metrics"),
        by_route,
    ]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"demo": {"full": {"path": "x"}}}'])
def test_a_file_that_cannot_be_read_names_no_replicas(tmp_path: Path, content: str) -> None:
    file = tmp_path / "replicas.json"
    file.write_text(content)
    assert read_engines(file) == {}
    assert read_engines(tmp_path / "nosuch.json") == {}
    assert read_engines(None) == {}


# Events of the publisher


async def test_the_publisher_reports_each_connect_and_disconnect(tmp_path: Path) -> None:
    told: list[tuple[str, Any]] = []

    def publisher(store: str, now: Callable[[], float]) -> Publisher:
        return Publisher(
            store,
            now,
            on_connect=lambda link: told.append((link.hello.gateway, link.peer)),
            on_disconnect=lambda link: told.append((link.hello.gateway, link.has_ended)),
        )

    async with control_plane(tmp_path, make_publisher=publisher) as plane:
        first = await plane.connect(FakeGateway("g0"))
        second = await plane.connect(FakeGateway("g1"))
        first.leave()
        await plane.attending[0]
        second.leave(has_ended=True)
        await plane.attending[1]
    assert told == [("g0", ""), ("g1", ""), ("g0", False), ("g1", True)]


@pytest.mark.parametrize(
    ("code", "has_ended"), [(1001, True), (1000, False), (1011, False), (1006, False)]
)
async def test_a_link_that_is_closed_in_order_tells_that_its_process_ended(
    code: int, has_ended: bool
) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "websocket.disconnect", "code": code}

    async def send(_message: Any) -> None:
        return

    socket = WebSocket({"type": "websocket"}, receive, send)
    socket.client_state = socket.application_state = WebSocketState.CONNECTED
    with pytest.raises(LinkClosed) as closed:
        await SocketChannel(socket).receive()
    assert closed.value.has_ended is has_ended
