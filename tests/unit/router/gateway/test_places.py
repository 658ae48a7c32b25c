"""A tenant's places: taken before the body, and left again whatever becomes of the request."""

import json

import pytest

from penumbra.router.flags.routing_table import Flag
from penumbra.router.settings import LimitSettings, TenantLimits
from penumbra.router.upstream.fake import Hang, Script, whole
from penumbra.router.upstream.port import UpstreamRequest
from tests.support.wire import (
    TABLE,
    WHOLE,
    Wire,
    WireGateway,
    chat,
    request,
    turns,
    wire_gateway,
)


def status_of(wire: Wire) -> int:
    return int(wire.sent.split(b" ", 2)[1]) if wire.sent else 0


def code_of(wire: Wire) -> str:
    return str(json.loads(wire.sent.partition(b"\r\n\r\n")[2])["error"]["code"])


async def test_an_unfinished_upload_takes_a_place() -> None:
    served = wire_gateway(concurrency=1)
    upload, late = served.connect(), served.connect()
    upload.feed(request(chat())[:-5])
    late.feed(request(chat(), "content-length: 100000")[:-5])
    await turns()
    assert (status_of(upload), status_of(late)) == (0, 429)
    assert served.in_flight("acme") == 1
    upload.feed(request(chat())[-5:])
    await turns()
    assert status_of(upload) == 200
    assert served.in_flight("acme") == 0


async def test_a_refused_request_that_is_here_as_a_whole_keeps_its_connection() -> None:
    served = wire_gateway(concurrency=1)
    upload, late = served.connect(), served.connect()
    upload.feed(request(chat())[:-5])
    late.feed(request(chat()) + request(chat(), key="other"))
    await turns(40)
    assert late.sent.count(b"HTTP/1.1 429") == late.sent.count(b"HTTP/1.1 200") == 1
    assert not late.transport.is_closing()


@pytest.mark.parametrize("body", [b"", b"{"])
async def test_a_refusal_does_not_wait_for_the_body(body: bytes) -> None:
    served = wire_gateway(requests_per_minute=1)
    first, second = served.connect(), served.connect()
    first.feed(request(chat()))
    second.feed(request(body, "content-length: 50"))
    await turns()
    assert (status_of(first), status_of(second)) == (200, 429)
    assert b"retry-after: 60\r\n" in second.sent
    assert second.transport.is_eof_sent


async def test_requests_that_wait_for_their_turn_hold_no_place_and_little_of_their_bodies() -> None:
    served = wire_gateway(lambda _url, _request: [Hang()], concurrency=1)
    wire = served.connect()
    wire.feed(request(chat()))
    wire.feed(request(chat()))
    await turns()
    assert served.in_flight("acme") == 1
    was_paused = wire.transport.is_reading_paused
    wire.feed(request(b"x" * 70_000, "content-length: 100000"))
    assert (was_paused, wire.transport.is_reading_paused) == (False, True)
    wire.lose()
    await turns()
    assert served.in_flight("acme") == 0


@pytest.mark.parametrize(("pause_seconds", "rounds"), [(1.5, 30), (2.5, 0)])
async def test_a_refused_upload_is_read_on_while_it_comes(
    pause_seconds: float, rounds: int
) -> None:
    served = wire_gateway()
    wire = served.connect()
    wire.feed(request(b"x", "content-length: 40000000"))
    await turns()
    assert status_of(wire) == 413
    for _ in range(rounds):
        served.pass_time(pause_seconds)
        wire.feed(b"x" * 100_000)
        assert not wire.transport.is_closing()
    served.pass_time(2.5)
    assert wire.transport.is_closing()


async def test_a_refused_upload_is_not_read_for_ever() -> None:
    served = wire_gateway()
    wire = served.connect()
    wire.feed(request(b"x", "content-length: 40000000"))
    await turns()
    for _ in range(60):
        served.pass_time(1.5)
        wire.feed(b"x")
    assert wire.transport.is_closing()


async def test_a_body_that_waited_for_its_turn_has_its_time_from_then_on() -> None:
    served = wire_gateway()
    wire = served.connect()
    wire.feed(request(chat(stream=True)))
    wire.feed(request(chat(), "content-length: 100000"))
    await turns(60)
    assert wire.sent.count(b"HTTP/1.1 ") == 1
    served.pass_time(served.gateway.limits.body_seconds - 1)
    await turns()
    assert wire.sent.count(b"HTTP/1.1 ") == 1
    served.pass_time(2)
    await turns()
    assert b"HTTP/1.1 408" in wire.sent
    assert served.in_flight("acme") == 0


@pytest.mark.parametrize("size", [10, 150_000])
async def test_a_fault_of_the_gateway_is_an_error_and_leaves_the_place(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    served = wire_gateway(concurrency=1)

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(served.gateway, "route", fail)
    for _ in range(3):
        wire = served.connect()
        wire.feed(request(chat(x="y" * size)))
        await turns()
        assert (status_of(wire), code_of(wire)) == (500, "internal_error")
        assert b"secret" not in wire.sent
        assert not wire.transport.is_closing()
        assert served.in_flight("acme") == 0


async def test_a_fault_at_the_end_of_an_answer_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = wire_gateway()
    wire = served.connect()

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("penumbra.router.gateway.exchange.Exchange._complete", fail)
    wire.feed(request(b"{"))
    await turns()
    assert wire.transport.is_closing()
    assert served.in_flight("acme") == 0


async def test_a_client_that_leaves_during_the_scan_of_its_body_leaves_its_place() -> None:
    served = wire_gateway()
    wire = served.connect()
    body = b'{"model":"demo","x":[' + b"[[[[1]]]]," * 17_000 + b"1]}"
    wire.feed(request(body))
    await turns(1)
    assert served.in_flight("acme") == 1
    wire.lose(ConnectionResetError())
    await turns()
    assert served.in_flight("acme") == 0
    assert status_of(wire) == 0


async def test_a_request_that_is_asked_again_of_the_baseline_counts_twice() -> None:
    model = TABLE.models["demo"].model_copy(update={"flag": Flag(split={"int8": 100})})

    def answer(url: str, _: UpstreamRequest) -> Script:
        refusal = {"error": {"message": "no", "type": "BadRequestError", "code": 400}}
        return whole(refusal, 400) if "int8" in url else whole(WHOLE)

    served = WireGateway(
        answer,
        TABLE.model_copy(update={"models": {"demo": model}}),
        {"acme": TenantLimits(requests_per_minute=12)},
        LimitSettings(),
    )
    first, second = served.connect(), served.connect()
    first.feed(request(chat()))
    await turns()
    second.feed(request(chat()))
    await turns()
    assert (status_of(first), status_of(second)) == (200, 429)
