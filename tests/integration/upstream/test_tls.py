"""Upstreams behind https."""

import ssl
from pathlib import Path

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.http import PoolLimits
from tests.integration.upstream.conftest import MakeUpstream
from tests.support.asking import ask
from tests.support.certificates import Authority
from tests.support.raw_server import always, answer, raw_server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def test_a_server_of_the_given_authority_answers(
    upstream_at: MakeUpstream, authority: Authority
) -> None:
    tls = authority.server("DNS:localhost")
    asked_names: list[str | None] = []

    def note(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        asked_names.append(name)

    tls.sni_callback = note
    async with raw_server(always(answer(b"[]")), tls=tls) as server:
        url = f"https://localhost:{server.port}/full/v1"
        upstream = upstream_at(url, ca_file=str(authority.ca_file))
        for _ in range(2):
            asked = await ask(upstream)
            assert (asked.status, asked.body) == (200, b"[]")
        assert len(server.connections) == 1
        assert server.requests[0].startswith(
            b"POST /full/v1/x HTTP/1.1\r\nhost: localhost:%d\r\n" % server.port
        )
    assert asked_names == ["localhost"]


async def test_an_address_can_be_certified(upstream_at: MakeUpstream, authority: Authority) -> None:
    tls = authority.server("IP:127.0.0.1")
    async with raw_server(always(answer()), tls=tls) as server:
        asked = await ask(upstream_at(server.url, ca_file=str(authority.ca_file)))
    assert asked.status == 200


async def test_a_large_request_arrives_whole(
    upstream_at: MakeUpstream, authority: Authority
) -> None:
    tls = authority.server("IP:127.0.0.1")
    body = bytes(range(256)) * 20_000
    async with raw_server(always(answer()), tls=tls) as server:
        upstream = upstream_at(server.url, ca_file=str(authority.ca_file))
        for _ in range(2):
            assert (await ask(upstream, body=body)).status == 200
        assert server.requests[1].endswith(body)
        assert len(server.connections) == 1


@pytest.mark.parametrize("is_known", [False, True], ids=["another authority", "another name"])
async def test_a_server_that_is_not_certified_gets_nothing(
    upstream_at: MakeUpstream, authority: Authority, is_known: bool
) -> None:
    tls = authority.server("DNS:else.example" if is_known else "IP:127.0.0.1")
    async with raw_server(always(answer()), tls=tls) as server:
        ca_file = str(authority.ca_file) if is_known else None
        asked = await ask(upstream_at(server.url, ca_file=ca_file))
        assert server.requests == []
    assert (asked.outcome, asked.stream.was_sent) == (Outcome.REFUSED, False)
    assert "certificate" in asked.detail


async def test_a_server_without_tls_is_refused(upstream_at: MakeUpstream) -> None:
    async with raw_server(always(answer())) as server:
        limits = PoolLimits(connect_seconds=0.3)
        asked = await ask(upstream_at(f"https://127.0.0.1:{server.port}", limits=limits))
    assert (asked.outcome, asked.stream.was_sent) == (Outcome.REFUSED, False)


async def test_a_file_without_certificates_is_named(
    upstream_at: MakeUpstream, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    for file in (empty, tmp_path / "missing.pem"):
        with pytest.raises(ValueError, match=file.name):
            upstream_at("https://127.0.0.1", ca_file=str(file))
