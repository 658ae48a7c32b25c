"""Limits of the control process that hold before a token is known: real process, raw sockets."""

import contextlib
import json
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.control_process import ADMIN, GATEWAY, VIEWER, ControlProcess
from tests.support.gateway_process import eventually

MIB = 1024 * 1024
HUGE = 300 * MIB
KILL = "/admin/v1/flags/demo/kill"
FLAG = "/admin/v1/flags/demo"
DESCRIPTORS = 512
UPGRADE = (
    "connection: Upgrade", "upgrade: websocket", "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlProcess]:
    with ControlProcess(tmp_path_factory.mktemp("control")) as process:
        yield process


@contextlib.contextmanager
def connected(control: ControlProcess) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", control.port), timeout=30.0) as sock:
        yield sock


def head(method: str, path: str, *lines: str, token: str | None = None) -> bytes:
    shown = [f"authorization: Bearer {token}"] if token else []
    start = [f"{method} {path} HTTP/1.1", "host: control"]
    return "\r\n".join([*start, *shown, *lines, "", ""]).encode()


def status_of(sock: socket.socket) -> int:
    with sock.makefile("rb") as answer:
        return int(answer.readline().split()[1])


def post_head(sock: socket.socket, path: str, token: str | None, method: str = "POST") -> int:
    """Send a head that announces 300 MB, and none of it; returns the answer's status."""
    lines = ("content-type: application/json", f"content-length: {HUGE}")
    sock.sendall(head(method, path, *lines, token=token))
    return status_of(sock)


@pytest.mark.parametrize(
    ("path", "method", "token", "status"),
    [
        (KILL, "POST", None, 401),
        (KILL, "POST", "wrong-token-of-the-tests", 401),
        (KILL, "POST", GATEWAY, 401),
        (KILL, "POST", VIEWER, 403),
        (KILL, "POST", ADMIN, 413),
        (FLAG, "PUT", None, 401),
        (FLAG, "PUT", ADMIN, 413),
        ("/admin/v1/flagd", "PUT", VIEWER, 403),
        ("/admin/v1/rollouts", "PUT", None, 401),
        ("/admin/v1/rollouts", "PUT", ADMIN, 413),
        ("/admin/v1/rollouts/int8/rollback?model=demo", "POST", None, 401),
        ("/admin/v1/alerts", "POST", None, 401),
        ("/admin/v1/alerts", "POST", ADMIN, 413),
    ],
)
def test_answer_comes_before_any_byte_of_the_body_is_asked_for(
    control: ControlProcess, path: str, method: str, token: str | None, status: int
) -> None:
    with connected(control) as sock:
        assert post_head(sock, path, token, method) == status


@pytest.mark.parametrize("token", [None, ADMIN])
def test_huge_body_leaves_memory_flat_and_the_process_answering(
    control: ControlProcess, token: str | None
) -> None:
    process = psutil.Process(control.process.pid)
    before = largest = process.memory_info().rss
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with connected(control) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(head("PUT", FLAG, "transfer-encoding: chunked", token=token))
        for number in range(HUGE // 65536):
            sock.sendall(piece)
            if number % 400 == 0:
                assert httpx.get(f"{control.url}/health").status_code == 200
                largest = max(largest, process.memory_info().rss)
    assert largest - before < 64 * MIB


def test_body_that_grows_past_its_bound_is_refused(control: ControlProcess) -> None:
    with connected(control) as sock:
        sock.sendall(head("POST", KILL, "transfer-encoding: chunked", token=ADMIN))
        sock.sendall(b"40000\r\n" + b"x" * 0x40000 + b"\r\n")
        assert status_of(sock) == 413


def test_head_without_an_end_is_refused(control: ControlProcess) -> None:
    with connected(control) as sock, contextlib.suppress(BrokenPipeError):
        sock.sendall(b"GET /health HTTP/1.1\r\nhost: control\r\n")
        for _ in range(32):
            sock.sendall(b"x-filler: " + b"f" * 8192 + b"\r\n")
    with connected(control) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nx-filler: " + b"f" * 128 * 1024)
        assert status_of(sock) == 431


@pytest.mark.parametrize("path", ["/gateway/v1/link", "/comparator/v1/link"])
@pytest.mark.parametrize("token", [None, "wrong-token-of-the-tests", ADMIN])
def test_link_without_its_token_is_refused_at_the_upgrade(
    control: ControlProcess, path: str, token: str | None
) -> None:
    with connected(control) as sock:
        sock.sendall(head("GET", path, *UPGRADE, token=token))
        with sock.makefile("rb") as answer:
            assert int(answer.readline().split()[1]) == 401
            answer.read()  # to the end: the process closes the connection


def test_kill_gets_through_while_silent_connections_use_all_that_they_may(
    tmp_path: Path,
) -> None:
    with ControlProcess(tmp_path) as control, contextlib.ExitStack() as stack:
        resource.prlimit(control.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        for number in range(DESCRIPTORS + 100):
            sock = stack.enter_context(connected(control))
            if number % 3 == 0:
                sock.sendall(b"GET /health HTTP/1.1\r\n")
        answer = control.post("/flags/demo/kill", {})
        assert answer.status_code == 200, answer.text
        assert json.loads(answer.text)["changed"]
        assert psutil.Process(control.process.pid).num_fds() < DESCRIPTORS


def test_kill_gets_through_on_a_connection_of_before_the_flood(tmp_path: Path) -> None:
    with ControlProcess(tmp_path) as control, contextlib.ExitStack() as stack:
        resource.prlimit(control.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        control.get("/flags")
        process = psutil.Process(control.process.pid)
        for _ in range(DESCRIPTORS + 100):
            stack.enter_context(connected(control))
        eventually(lambda: process.num_fds() < DESCRIPTORS, what="the flood to be bounded")
        assert control.post("/flags/demo/kill", {}).status_code == 200


def test_refused_logins_are_counted_and_logged_without_the_token(tmp_path: Path) -> None:
    with ControlProcess(tmp_path) as control:
        for path, lines in (("/admin/v1/flags", ()), ("/gateway/v1/link", UPGRADE)):
            with connected(control) as sock:
                sock.sendall(head("GET", path, *lines, token="canary-token-of-the-tests"))
                assert status_of(sock) == 401
        assert control.post("/flags/demo/kill", {}, VIEWER).status_code == 403
        page = httpx.get(f"{control.url}/metrics").text
        told = [json.loads(line) for line in control.log_text().splitlines()]
    name = "penumbra_control_logins_refused_total"
    counted = {line for line in page.splitlines() if line.startswith(name) and line[-4:] == " 1.0"}
    assert counted == {
        f'{name}{{reason="unknown_token",surface="admin"}} 1.0',
        f'{name}{{reason="not_allowed",surface="admin"}} 1.0',
        f'{name}{{reason="unknown_token",surface="link"}} 1.0',
    }
    assert [line["address"] for line in told if line["event"] == "login_refused"] == ["127.0.0.1"]
    assert "canary" not in control.log_text()
