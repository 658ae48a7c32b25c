"""Request smuggling: heads that two HTTP parsers may read differently are refused and not run."""

import pytest

from tests.support.gateway_process import GatewayProcess
from tests.support.raw_client import request_bytes
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

WAIT_SECONDS = 8.0
"""Less than `header_seconds`: what is refused is not left to time out."""
"""A connection that is still open after this was not closed."""

BODY = dumps(chat())
SMUGGLED = request_bytes(CHAT, dumps(chat(user="smuggled")))


def head(*lines: str | bytes, method: str = "POST", version: str = "HTTP/1.1") -> bytes:
    """A request head of exactly these header lines after `host`."""
    encoded = [line.encode("latin-1") if isinstance(line, str) else line for line in lines]
    start = f"{method} {CHAT} {version}".encode()
    return b"\r\n".join([start, b"host: x", *encoded, b"", b""])


LENGTH = f"content-length: {len(BODY)}"
CHUNKED = "transfer-encoding: chunked"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def chunks(first_line: bytes, data: bytes = BODY, end: bytes = b"\r\n0\r\n\r\n") -> bytes:
    return head(CHUNKED) + first_line + b"\r\n" + data + end


SIZE = b"%x" % len(BODY)

LENGTHS: dict[str, bytes] = {
    "two_that_differ": head(LENGTH, "content-length: 5") + BODY,
    "two_alike": head(LENGTH, LENGTH) + BODY,
    "list_that_differs": head(f"content-length: {len(BODY)}, 5") + BODY,
    "list_alike": head(f"content-length: {len(BODY)}, {len(BODY)}") + BODY,
    "negative": head("content-length: -1") + BODY,
    "plus": head(f"content-length: +{len(BODY)}") + BODY,
    "hex": head(f"content-length: 0x{len(BODY):x}") + BODY,
    "fraction": head(f"content-length: {len(BODY)}.0") + BODY,
    "underscore": head("content-length: 1_0") + BODY,
    "word": head("content-length: many") + BODY,
    "empty": head("content-length:") + BODY,
    "overflow": head(f"content-length: {2**64 + len(BODY)}") + BODY,
    "long_overflow": head("content-length: " + "9" * 400) + BODY,
    "blank_inside": head("content-length: 1 0") + BODY,
    "arabic_digits": head(b"content-length: \xd9\xa1\xd9\xa0") + BODY,
    "nul": head(b"content-length: 1\x000") + BODY,
}

CODINGS: dict[str, bytes] = {
    "with_length": head(LENGTH, CHUNKED) + CHUNKS,
    "with_length_after": head(CHUNKED, LENGTH) + CHUNKS,
    "with_zero_length": head("content-length: 0", CHUNKED) + CHUNKS,
    "gzip": head("transfer-encoding: gzip") + BODY,
    "gzip_chunked": head("transfer-encoding: gzip, chunked") + CHUNKS,
    "chunked_gzip": head("transfer-encoding: chunked, gzip") + CHUNKS,
    "identity": head("transfer-encoding: identity", LENGTH) + BODY,
    "chunked_identity": head("transfer-encoding: chunked, identity") + CHUNKS,
    "twice": head(CHUNKED, CHUNKED) + CHUNKS,
    "twice_in_one": head("transfer-encoding: chunked, chunked") + CHUNKS,
    "second_is_nonsense": head(CHUNKED, "transfer-encoding: x") + CHUNKS,
    "prefix": head("transfer-encoding: xchunked") + CHUNKS,
    "suffix": head("transfer-encoding: chunkedx", LENGTH) + BODY,
    "quoted": head('transfer-encoding: "chunked"') + CHUNKS,
    "parameter": head("transfer-encoding: chunked;q=1") + CHUNKS,
    "empty": head("transfer-encoding:", LENGTH) + BODY,
    "vertical_tab": head("transfer-encoding: \x0bchunked") + CHUNKS,
}

CHUNK_FRAMES: dict[str, bytes] = {
    "negative": chunks(b"-" + SIZE),
    "plus": chunks(b"+" + SIZE),
    "hex_prefix": chunks(b"0x" + SIZE),
    "blank_before": chunks(b" " + SIZE),
    "no_size": chunks(b""),
    "word": chunks(b"zz"),
    "overflow": chunks(b"1" + b"0" * 16 + SIZE),
    "underscore": chunks(b"1_0"),
    "too_short": chunks(b"%x" % (len(BODY) - 1)),
    "too_long": chunks(b"%x" % (len(BODY) + 1)),
    "no_line_end_after_data": chunks(SIZE, end=b"0\r\n\r\n"),
    "bare_lf_after_size": head(CHUNKED) + SIZE + b"\n" + BODY + b"\r\n0\r\n\r\n",
    "bare_cr_after_size": head(CHUNKED) + SIZE + b"\r" + BODY + b"\r\n0\r\n\r\n",
    "bare_lf_after_data": chunks(SIZE, end=b"\n0\r\n\r\n"),
    "bare_lf_at_the_end": chunks(SIZE, end=b"\r\n0\n\n"),
    "bare_lf_in_extension": chunks(SIZE + b";a\nb"),
    "nul_in_extension": chunks(SIZE + b";a=\x00"),
    "cr_in_extension": chunks(SIZE + b";a=\rb"),
}

HEADER_LINES: dict[str, bytes] = {
    "obs_fold": head(LENGTH, "x-folded: a\r\n b") + BODY,
    "obs_fold_tab": head(LENGTH, "x-folded: a\r\n\tb") + BODY,
    "obs_fold_of_length": head("content-length:\r\n " + str(len(BODY))) + BODY,
    "fold_first": head(" x-first: 1", LENGTH) + BODY,
    "bare_lf": head(LENGTH + "\nx-a: b") + BODY,
    "bare_lf_only": head(LENGTH).replace(b"\r\n", b"\n") + BODY,
    "bare_lf_blank_line": head(LENGTH)[:-2] + b"\n" + BODY,
    "bare_cr": head(LENGTH, "x-a: b\rx-c: d") + BODY,
    "nul_in_value": head(LENGTH, b"x-a: b\x00c") + BODY,
    "nul_in_name": head(LENGTH, b"x\x00a: b") + BODY,
    "control_in_value": head(LENGTH, b"x-a: b\x01c") + BODY,
    "delete_in_value": head(LENGTH, b"x-a: b\x7fc") + BODY,
    "blank_before_colon": head(f"content-length : {len(BODY)}") + BODY,
    "tab_before_colon": head("transfer-encoding\t: chunked") + CHUNKS,
    "blank_in_name": head(LENGTH, "x a: b") + BODY,
    "no_colon": head(LENGTH, "nonsense") + BODY,
    "no_name": head(LENGTH, ": value") + BODY,
    "eight_bit_name": head(LENGTH, b"x-\xe9: b") + BODY,
    "bracket_in_name": head(LENGTH, "x[a]: b") + BODY,
    "two_hosts": head("host: y", LENGTH) + BODY,
    "no_host": head(LENGTH).replace(b"host: x\r\n", b"") + BODY,
}

REQUEST_LINES: dict[str, bytes] = {
    "http_0_9": b"GET /health\r\n\r\n",
    "http_0_9_post": b"POST " + CHAT.encode() + b"\r\n\r\n",
    "http_2_preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "http_2_0": head(LENGTH, version="HTTP/2.0") + BODY,
    "http_1_2": head(LENGTH, version="HTTP/1.2") + BODY,
    "http_9_9": head(LENGTH, version="HTTP/9.9") + BODY,
    "version_in_small_letters": head(LENGTH, version="http/1.1") + BODY,
    "version_with_blank": head(LENGTH, version="HTTP/1.1 ") + BODY,
    "version_long": head(LENGTH, version="HTTP/1.11") + BODY,
    "other_protocol": head(LENGTH, version="ICY/1.1") + BODY,
    "blank_in_target": head(LENGTH).replace(b"/chat", b"/ chat", 1) + BODY,
    "control_in_target": head(LENGTH).replace(b"/chat", b"/\x01chat", 1) + BODY,
    "nul_in_target": head(LENGTH).replace(CHAT.encode(), CHAT.encode() + b"\x00", 1) + BODY,
    "eight_bit_target": head(LENGTH).replace(CHAT.encode(), CHAT.encode() + b"\xff", 1) + BODY,
    "tab": head(LENGTH).replace(b"POST ", b"POST\t", 1) + BODY,
    "small_method": head(LENGTH, method="post") + BODY,
    "odd_method": head(LENGTH, method="POST@") + BODY,
    "tls": bytes.fromhex("16030100c8010000c40303") + b"\x00" * 200,
    "binary": bytes(range(256)),
    "nothing_but_nul": b"\x00" * 100,
}

ALL = {
    f"{group}-{name}": data
    for group, cases in {
        "length": LENGTHS,
        "coding": CODINGS,
        "chunk": CHUNK_FRAMES,
        "header": HEADER_LINES,
        "line": REQUEST_LINES,
    }.items()
    for name, data in cases.items()
}


@pytest.mark.parametrize("data", ALL.values(), ids=ALL.keys())
def test_ambiguous_request_is_refused_and_nothing_runs(
    gateway: GatewayProcess, full: ScriptedUpstream, data: bytes
) -> None:
    with gateway.connect(timeout=WAIT_SECONDS) as client:
        client.send(data + SMUGGLED)
        responses = client.read_responses_to_eof()
    assert full.requests == []
    assert [response.status for response in responses if not 400 <= response.status < 500] == []
    assert len(responses) <= 1


@pytest.mark.parametrize("data", ALL.values(), ids=ALL.keys())
def test_ambiguous_request_after_a_good_one_is_refused_and_nothing_runs(
    gateway: GatewayProcess, full: ScriptedUpstream, data: bytes
) -> None:
    with gateway.connect(timeout=WAIT_SECONDS) as client:
        client.send(request_bytes(CHAT, BODY) + data + SMUGGLED)
        responses = client.read_responses_to_eof()
    assert [request.body for request in full.requests] == [BODY]
    assert responses[0].status == 200
    assert [response.status for response in responses[1:] if response.status < 400] == []
    assert len(responses) <= 2


UNROUTABLE: dict[str, bytes] = {
    "absolute_form_of_another_host": head(LENGTH).replace(b"/v1", b"http://evil.test/v1", 1),
    "absolute_form_of_another_scheme": head(LENGTH).replace(b"/v1", b"ftp://x/v1", 1),
    "authority_form": head(LENGTH).replace(CHAT.encode(), b"evil.test:80", 1),
    "connect": head(LENGTH, method="CONNECT"),
    "connect_authority": head(LENGTH, method="CONNECT").replace(CHAT.encode(), b"evil:80", 1),
    "asterisk": head(LENGTH).replace(CHAT.encode(), b"*", 1),
    "fragment": head(LENGTH).replace(CHAT.encode(), CHAT.encode() + b"#x", 1),
    "escaped_path": head(LENGTH).replace(b"/chat", b"/%63hat", 1),
    "trace": head(LENGTH, method="TRACE"),
}


@pytest.mark.parametrize("data", UNROUTABLE.values(), ids=UNROUTABLE.keys())
def test_request_of_an_odd_target_is_not_executed(
    gateway: GatewayProcess, full: ScriptedUpstream, data: bytes
) -> None:
    with gateway.connect(timeout=WAIT_SECONDS) as client:
        client.send(data + BODY)
        assert 400 <= client.read_response().status < 500
    assert full.requests == []


def test_chunked_request_of_http_1_0_is_the_last_on_its_connection(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    with gateway.connect(timeout=WAIT_SECONDS) as client:
        lines = (CHUNKED, "connection: keep-alive")
        client.send(head(*lines, version="HTTP/1.0") + CHUNKS + SMUGGLED)
        client.read_responses_to_eof()
    assert [request for request in full.requests if b"smuggled" in request.body] == []


FINE: dict[str, bytes] = {
    "chunked": head(CHUNKED) + CHUNKS,
    "chunked_in_capitals": head("Transfer-Encoding: CHUNKED") + CHUNKS,
    "capital_digits": chunks(SIZE.upper()),
    "leading_zeros": chunks(b"000" + SIZE),
    "extension": chunks(SIZE + b";name=value"),
    "trailer": head(CHUNKED) + CHUNKS[:-2] + b"x-sum: 1\r\n\r\n",
    "length_with_zeros": head(f"content-length: 000{len(BODY)}") + BODY,
    "blanks_around_value": head(f"content-length: \t {len(BODY)} \t ") + BODY,
    "no_blank_after_colon": head(f"content-length:{len(BODY)}") + BODY,
    "empty_lines_before": b"\r\n" + head(LENGTH) + BODY,
    "repeated_other_header": head(LENGTH, "x-a: 1", "x-a: 2") + BODY,
    "odd_but_legal_name": head(LENGTH, "!#$%&'*+-.^_`|~09az: 1") + BODY,
}


@pytest.mark.parametrize("data", FINE.values(), ids=FINE.keys())
def test_unusual_but_legal_request_is_answered(
    gateway: GatewayProcess, full: ScriptedUpstream, data: bytes
) -> None:
    with gateway.connect(timeout=WAIT_SECONDS) as client:
        client.send(data)
        assert client.read_response().status == 200
        client.send(request_bytes(CHAT, BODY))
        assert client.read_response().status == 200
    assert [request.body for request in full.requests] == [BODY, BODY]


@pytest.mark.parametrize("upgrade", ["websocket", "h2c", "TLS/1.0", "nonsense"])
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/nope"])
def test_upgrade_never_leaves_http(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str, upgrade: str
) -> None:
    headers = {"connection": "upgrade", "upgrade": upgrade, "sec-websocket-version": "13"}
    with gateway.connect(timeout=WAIT_SECONDS) as client:
        client.send(request_bytes(path, BODY, headers) + SMUGGLED + b"\x81\x05hello")
        responses = client.read_responses_to_eof()
    assert [response.status for response in responses if response.status == 101] == []
    assert len([r for r in full.requests if b"smuggled" in r.body]) <= 1
