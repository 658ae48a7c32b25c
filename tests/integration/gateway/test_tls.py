"""The gateway's own port behind TLS."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.gateway.conftest import model
from tests.support.behaviours import LAST_CHUNK, STREAM_HEAD, chunk, raw
from tests.support.certificates import Authority
from tests.support.engine_wire import DONE
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.raw_client import request_bytes
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream


class Certified(GatewayProcess):
    """A gateway that is asked by https from outside, and by http at its internal port."""

    def is_up(self) -> bool:
        return self.get("/ready", is_internal=True).status == 200

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.log_text()[-2000:]
            try:
                return self.is_up()
            except (OSError, AssertionError):
                return False

        eventually(is_ready, what="the gateway to be ready")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def files(authority: Authority) -> dict[str, str]:
    """Certificate and key of a server at the loopback address."""
    authority.server("IP:127.0.0.1")
    folder = authority.ca_file.parent
    return {"certificate": str(folder / "server.pem"), "key": str(folder / "server.key")}


@pytest.fixture
def secure(
    full: ScriptedUpstream, int8: ScriptedUpstream, files: dict[str, str], tmp_path: Path
) -> Iterator[Certified]:
    snapshot = {"epoch": 7, "models": {"demo": model(full, int8)}}
    with Certified({"snapshot": snapshot, "tls": files}, tmp_path) as process:
        yield process


def client(gateway: Certified, authority: Authority, **more: Any) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    return httpx.Client(
        base_url=f"https://127.0.0.1:{gateway.port}", verify=context, timeout=30, **more
    )


def test_requests_are_answered_and_streams_relayed(
    secure: Certified, full: ScriptedUpstream, authority: Authority
) -> None:
    with client(secure, authority) as session:
        for _ in range(2):
            assert session.post(CHAT, json=chat()).status_code == 200
        assert session.get("/v1/models").json()["data"][0]["id"] == "demo"
        text = "x" * 3_000_000
        piece = chunk(b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text.encode())
        full.always(raw(STREAM_HEAD + piece + chunk(DONE) + LAST_CHUNK, then=None))
        assert text in session.post(CHAT, json=chat(stream=True)).text
        body = chat(user="u" * 2_000_000)
        full.reset()
        assert session.post(CHAT, json=body).status_code == 200


def test_errors_reach_the_client(secure: Certified, authority: Authority) -> None:
    with client(secure, authority) as session:
        assert session.post(CHAT, content=b"{").status_code == 400
        assert session.get("/nope").status_code == 404
        headers = {f"x-{number}": "1" for number in range(200)}
        assert session.get("/v1/models", headers=headers).status_code == 431
        assert session.get("/health").status_code == 200


def test_plain_http_is_not_answered(secure: Certified, full: ScriptedUpstream) -> None:
    with secure.connect() as plain:
        plain.send(request_bytes("/health", method="GET"))
        assert plain.is_closed() or plain.read_to_eof()[:5] != b"HTTP/"
    assert full.requests == []


def test_internal_port_stays_plain(secure: Certified) -> None:
    assert secure.get("/health", is_internal=True).status == 200


def test_http_2_is_not_negotiated(secure: Certified, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        secure.connect() as plain,
        context.wrap_socket(plain.socket, server_hostname="127.0.0.1") as wrapped,
    ):
        assert wrapped.selected_alpn_protocol() == "http/1.1"


def serial(gateway: Certified, authority: Authority) -> object:
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    with (
        gateway.connect() as plain,
        context.wrap_socket(plain.socket, server_hostname="127.0.0.1") as wrapped,
    ):
        found = wrapped.getpeercert()
        assert found
        return found["serialNumber"]


def test_renewed_certificate_is_taken_up_without_a_restart(
    secure: Certified, authority: Authority
) -> None:
    first = serial(secure, authority)
    with client(secure, authority) as session:
        assert session.get("/health").status_code == 200
        authority.server("IP:127.0.0.1")
        eventually(lambda: serial(secure, authority) != first, what="the renewed certificate")
        assert session.get("/health").status_code == 200  # on the connection of before
    assert "certificate_renewed" in secure.log_text()


def test_certificate_that_is_no_use_changes_nothing(
    secure: Certified, authority: Authority, files: dict[str, str]
) -> None:
    first = serial(secure, authority)
    Path(files["certificate"]).write_text("half of a file")
    eventually(lambda: "certificate_unusable" in secure.log_text(), what="the warning")
    assert serial(secure, authority) == first


@pytest.mark.parametrize("broken", ["certificate", "key"])
@pytest.mark.parametrize("content", [None, "", "nonsense"])
def test_start_without_a_usable_certificate_says_which_files(
    files: dict[str, str], tmp_path: Path, broken: str, content: str | None
) -> None:
    file = tmp_path / "broken.pem"
    if content is not None:
        file.write_text(content)
    settings = GatewayProcess(
        {"snapshot": {"epoch": 1, "models": {}}, "tls": {**files, broken: str(file)}}, tmp_path
    )
    settings.start(wait=False)
    assert settings.process.wait(30) == 2
    assert "gateway.tls" in settings.log_text()
    assert str(file) in settings.log_text()
    assert "Traceback" not in settings.log_text()
