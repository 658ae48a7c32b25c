"""Random bytes in random pieces: the gateway lives and answers or closes every connection."""

import contextlib
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.behaviours import respond
from tests.support.gateway_process import GatewayProcess
from tests.support.raw_client import RawClient, request_bytes
from tests.support.requests import CHAT, COMPLETIONS, chat, completion, dumps
from tests.support.scripted_upstream import ScriptedUpstream

FUZZ = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    # Shrinking what needs real time-outs takes minutes; the message names the one connection.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
SOON = 0.3
AT_ONCE = 30

BODY = dumps(chat())
CHUNKED = (
    f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    + b"%x\r\n%b\r\n" % (len(BODY), BODY)
    + b"0\r\nx-trailer: 1\r\n\r\n"
)
VALID = [
    request_bytes(CHAT, BODY),
    request_bytes(CHAT, dumps(chat(stream=True)), {"x-user-id": "u"}),
    request_bytes(COMPLETIONS, dumps(completion(stream=True, n=2))),
    request_bytes("/tokenize", dumps(completion()), {"x-penumbra-variant": "int8"}),
    request_bytes(CHAT, BODY, {"expect": "100-continue"}),
    CHUNKED,
    request_bytes("/v1/models", method="GET"),
    request_bytes("/health", method="GET"),
    request_bytes("/nope", b"{}"),
]
SPICES = [
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b":", b"\t", b"\xff", b"\r\n\r\n", b"0\r\n\r\n",
    b"transfer-encoding: chunked\r\n", b"content-length: 5\r\n", b"content-length: -1\r\n",
    b"connection: close\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n", b"HTTP/1.0", b"HTTP/9.9",
    b"expect: 100-continue\r\n", b"content-encoding: gzip\r\n", b"{", b"}", b'"', b"\\u0000",
    b'"model":"demo",', b'"stream":true,', b"fffffffffffffffff\r\n", b"POST ",
]  # fmt: skip


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {
        "header_bytes": 4096,
        "body_bytes": 16384,
        "header_seconds": SOON,
        "body_seconds": SOON,
        "keep_alive_seconds": SOON,
    }


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """One to three requests with bytes removed, repeated and inserted."""
    data = b"".join(draw(st.lists(st.sampled_from(VALID), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.integers(0, 12)))
        new = draw(st.one_of(st.sampled_from(SPICES), st.binary(max_size=8)))
        kind = draw(st.sampled_from(["insert", "replace", "delete", "double", "truncate"]))
        if kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "replace":
            data = data[:at] + new + data[until:]
        elif kind == "delete":
            data = data[:at] + data[until:]
        elif kind == "double":
            data = data[:until] + data[at:]
        else:
            data = data[:at]
    return data


@st.composite
def in_pieces(draw: st.DrawFn, what: st.SearchStrategy[bytes]) -> list[bytes]:
    """The same bytes, cut at random places."""
    data = draw(what)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def talk(gateway: GatewayProcess, connections: list[list[bytes]]) -> list[bytes]:
    """Send the pieces of all connections in turn; returns what each got until it was closed."""
    clients = [gateway.connect(timeout=60 * SOON) for _ in connections]
    try:
        for turn in range(max(map(len, connections))):
            for client, pieces in zip(clients, connections, strict=True):
                if turn < len(pieces):
                    send(client, pieces[turn])
        return [read(client, pieces) for client, pieces in zip(clients, connections, strict=True)]
    finally:
        for client in clients:
            client.close()


def read(client: RawClient, pieces: list[bytes]) -> bytes:
    try:
        return client.read_to_eof()
    except TimeoutError:
        raise AssertionError(f"left hanging: {pieces}") from None


def send(client: RawClient, data: bytes) -> None:
    # The gateway may have closed already.
    with contextlib.suppress(ConnectionError):
        client.send(data)


def statuses(data: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", data)]


@FUZZ
@given(st.lists(in_pieces(mutated()), min_size=AT_ONCE, max_size=AT_ONCE))
def test_mutated_requests_are_answered_or_closed_and_never_5xx(
    gateway: GatewayProcess, connections: list[list[bytes]]
) -> None:
    for pieces, answer in zip(connections, talk(gateway, connections), strict=True):
        assert [status for status in statuses(answer) if status >= 500] == [], pieces
        assert not answer or answer.startswith(b"HTTP/1.1 "), pieces
    assert gateway.is_running
    assert gateway.get("/health").status == 200


@FUZZ
@given(st.lists(in_pieces(st.binary(max_size=200)), min_size=AT_ONCE, max_size=AT_ONCE))
def test_random_bytes_are_answered_or_closed_and_never_run(
    gateway: GatewayProcess, full: ScriptedUpstream, connections: list[list[bytes]]
) -> None:
    for answer in talk(gateway, connections):
        assert [status for status in statuses(answer) if not 400 <= status < 500] == []
    assert gateway.is_running
    assert full.requests == []


@FUZZ
@given(
    st.lists(
        in_pieces(st.lists(st.sampled_from(VALID), min_size=1, max_size=8).map(b"".join)),
        min_size=10,
        max_size=10,
    )
)
def test_valid_requests_in_any_pieces_are_all_answered(
    gateway: GatewayProcess, connections: list[list[bytes]]
) -> None:
    for pieces, answer in zip(connections, talk(gateway, connections), strict=True):
        data = b"".join(pieces)
        wanted = data.count(b" HTTP/1.1\r\n")
        found = [status for status in statuses(answer) if status != 100]
        assert len(found) == wanted, pieces
        assert set(found) <= {200, 404}


@FUZZ
@given(st.lists(st.binary(max_size=300), min_size=AT_ONCE, max_size=AT_ONCE))
def test_random_bodies_are_refused_and_never_5xx(
    gateway: GatewayProcess, bodies: list[bytes]
) -> None:
    requests = [[request_bytes(CHAT, body, {"connection": "close"})] for body in bodies]
    for body, answer in zip(bodies, talk(gateway, requests), strict=True):
        assert statuses(answer) == [400], body


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["model", "stream", "n", "user", "messages", "prompt", "input", "tools", "response_format",
     "max_tokens", "stream_options", "logprobs", "structured_outputs", "guided_json"]
)  # fmt: skip


@FUZZ
@given(
    st.lists(st.dictionaries(FIELDS, JSON, max_size=6), min_size=AT_ONCE, max_size=AT_ONCE),
    st.booleans(),
)
def test_json_of_any_shape_is_relayed_or_refused(
    gateway: GatewayProcess, full: ScriptedUpstream, bodies: list[dict[str, Any]], is_known: bool
) -> None:
    full.always(respond(200, b"{}"))
    named = [{**body, "model": "demo"} if is_known else body for body in bodies]
    requests = [[request_bytes(CHAT, dumps(body), {"connection": "close"})] for body in named]
    for body, answer in zip(named, talk(gateway, requests), strict=True):
        (status,) = statuses(answer)
        assert status in ((200,) if is_known else (400, 404)), body
