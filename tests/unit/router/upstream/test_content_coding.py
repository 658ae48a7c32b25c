"""Answers that come compressed although nothing compressed was asked for."""

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.upstream.content_coding import CannotDecode, Decoder, coding_of


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return coder.compress(data) + coder.flush()


CODERS = [(b"gzip", gzip.compress), (b"deflate", zlib.compress), (b"deflate", raw_deflate)]


def decoded(decoder: Decoder, *pieces: bytes) -> bytes:
    return b"".join(out for piece in pieces for out in decoder.feed(piece))


@pytest.mark.parametrize(("coding", "encode"), CODERS)
@given(data=st.binary(max_size=300_000), cut=st.integers(2, 50))
def test_what_was_encoded_comes_out_whatever_the_pieces(
    coding: bytes, encode: Callable[[bytes], bytes], data: bytes, cut: int
) -> None:
    sent, decoder = encode(data), Decoder(coding)
    pieces = [sent[at : at + cut] for at in range(0, min(len(sent), 500), cut)]
    assert decoded(decoder, *pieces, sent[len(b"".join(pieces)) :]) == data
    assert decoder.is_complete


def test_each_event_of_a_stream_comes_out_with_its_piece() -> None:
    coder = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    decoder = Decoder(b"gzip")
    for event in (b"data: {}\n\n", b'data: {"a":1}\n\n', b"data: [DONE]\n\n"):
        piece = coder.compress(event) + coder.flush(zlib.Z_SYNC_FLUSH)
        assert decoded(decoder, piece) == event
    assert not decoder.is_complete
    assert decoded(decoder, coder.flush()) == b""
    assert decoder.is_complete


def test_the_parts_of_a_gzip_file_of_several_come_out() -> None:
    sent = gzip.compress(b"one", mtime=0) + gzip.compress(b"two", mtime=0)
    assert decoded(Decoder(b"gzip"), sent) == b"onetwo"
    assert decoded(Decoder(b"gzip"), sent[:23], sent[23:]) == b"onetwo"


def test_an_answer_without_a_body_is_complete() -> None:
    assert Decoder(b"gzip").is_complete


@pytest.mark.parametrize(
    "sent", [b'{"id":1}', gzip.compress(b"x", mtime=0) + b"rest", b"\x1f\x8b\x08\xff"]
)
def test_what_is_not_encoded_is_an_error(sent: bytes) -> None:
    with pytest.raises(CannotDecode):
        decoded(Decoder(b"gzip"), sent, b"\xff" * 20)


def test_a_piece_grows_up_to_a_limit() -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    assert len(bomb) < 100_000
    pieces: list[bytes] = []
    with pytest.raises(CannotDecode):
        pieces.extend(Decoder(b"gzip").feed(bomb))
    assert sum(map(len, pieces)) <= 8 * 1024 * 1024


@pytest.mark.parametrize(
    ("headers", "coding"),
    [
        ([], b""),
        ([(b"content-type", b"application/json")], b""),
        ([(b"content-encoding", b"gzip")], b"gzip"),
        ([(b"content-encoding", b" GZIP ")], b"gzip"),
        ([(b"content-encoding", b"x-gzip")], b"x-gzip"),
        ([(b"content-encoding", b"deflate")], b"deflate"),
        ([(b"content-encoding", b"br")], b""),
        ([(b"content-encoding", b"identity")], b""),
        ([(b"content-encoding", b"gzip"), (b"content-encoding", b"br")], b""),
        ([(b"content-encoding", b"gzip, gzip")], b""),
    ],
)
def test_one_known_coding_is_undone(headers: list[tuple[bytes, bytes]], coding: bytes) -> None:
    assert coding_of(headers) == coding
