import pytest

from penumbra.router.gateway.headers import (
    TextHeaders,
    answer_head,
    is_valid_request_id,
    upstream_headers,
)


@pytest.mark.parametrize("value", [b"a", b"x" * 128, b"req-1:2/3"])
def test_a_usable_request_id_is_valid(value: bytes) -> None:
    assert is_valid_request_id(value)


@pytest.mark.parametrize("value", [b"", b"x" * 129, b"a b", b"a\tb", b"\xc3\xa9", b"a\x00"])
def test_an_unusable_request_id_is_not_valid(value: bytes) -> None:
    assert not is_valid_request_id(value)


@pytest.mark.parametrize("text", ["alice", "Zoë", "Ελένη", "山田", "a b", ""])
def test_header_values_are_read_as_utf_8(text: str) -> None:
    headers = TextHeaders({b"x-user-id": text.encode()})
    assert headers["x-user-id"] == headers.get("x-user-id") == text


def test_header_values_that_are_no_utf_8_are_read_as_latin_1() -> None:
    headers = TextHeaders({b"x-user-id": "Jürgen".encode("latin-1")})
    assert headers["x-user-id"] == headers.get("x-user-id") == "Jürgen"
    assert headers.get("x-session-id") is None


def test_private_and_hop_by_hop_headers_stay_behind() -> None:
    headers = {
        b"host": b"gateway",
        b"authorization": b"Bearer secret",
        b"x-api-key": b"secret",
        b"cookie": b"c",
        b"connection": b"keep-alive, X-Hop",
        b"x-hop": b"1",
        b"x-penumbra-variant": b"int8",
        b"x-penumbra-anything": b"1",
        b"transfer-encoding": b"chunked",
        b"content-length": b"3",
        b"content-type": b"application/json",
        b"accept-encoding": b"gzip",
        b"traceparent": b"00-a-b-01",
        b"x-request-id": b"forged",
    }
    assert upstream_headers(list(headers.items()), headers, b"req-1") == (
        b"content-type: application/json\r\ntraceparent: 00-a-b-01\r\nx-request-id: req-1\r\n"
    )


def test_repeated_headers_travel_all_in_order() -> None:
    headers = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"a", b"1"), (b"b", b"")]
    lines = upstream_headers(headers, dict(headers), b"req-1")
    assert lines == b"a: 1\r\nb: 2\r\na: 3\r\na: 1\r\nb: \r\nx-request-id: req-1\r\n"


@pytest.mark.parametrize("values", [(b"x-a", b"x-b"), (b"x-a,X-B", b"close"), (b"", b"x-b , x-a")])
def test_headers_that_any_connection_line_names_stay_behind(values: tuple[bytes, ...]) -> None:
    nominating = [(b"connection", value) for value in values]
    headers = [(b"x-a", b"1"), *nominating, (b"x-b", b"2"), (b"x-c", b"3")]
    lines = upstream_headers(headers, dict(headers), b"req-1")
    assert lines == b"x-c: 3\r\nx-request-id: req-1\r\n"
    assert answer_head(200, headers, b"\r\n") == b"HTTP/1.1 200 OK\r\nx-c: 3\r\n\r\n"


def test_an_answer_head_keeps_end_to_end_headers_only() -> None:
    head = answer_head(
        429,
        [
            (b"retry-after", b"3"),
            (b"connection", b"close"),
            (b"content-length", b"9"),
            (b"x-penumbra-variant", b"forged"),
            (b"server", b"engine"),
        ],
        b"content-length: 2\r\n\r\n",
    )
    assert head == (
        b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 3\r\ncontent-length: 2\r\n\r\n"
    )


def test_an_unknown_status_has_an_empty_phrase() -> None:
    assert answer_head(299, [], b"\r\n").startswith(b"HTTP/1.1 299 \r\n")
