"""Forms: the model that they name, however they are written, and forms that are none."""

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.errors import BadRequest
from penumbra.router.gateway.body_peek import BodyPeek
from penumbra.router.gateway.form_body import FormBody

TYPE = b"multipart/form-data; boundary=X-1"
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'
MODEL = b'Content-Disposition: form-data; name="model"'


def read_form(content_type: bytes | None, body: bytes) -> BodyPeek:
    reading = FormBody(content_type, body)
    while (peek := reading.step()) is None:
        pass
    return peek


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"X-1") -> bytes:
    written = [b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head, value) for head, value in parts]
    return b"".join(written) + b"--%b--\r\n" % boundary


@given(st.binary(max_size=200), st.booleans())
def test_the_model_is_found_before_and_behind_a_file(content: bytes, is_first: bool) -> None:
    if b"\r\n--X-1" in b"\r\n" + content:
        return
    parts = [(MODEL, b"demo"), (FILE, content)]
    assert read_form(TYPE, form(*(parts if is_first else parts[::-1]))).model == "demo"


@pytest.mark.parametrize(
    "head",
    [
        MODEL.lower(),
        b"Content-Disposition: form-data; name=model",
        b"Content-Type: text/plain\r\nContent-Disposition:form-data ; NAME=model",
        MODEL + b"\r\nContent-Type: text/plain; charset=utf-8",
        b'content-disposition: form-data; filename="a;name=b"; name="model"',
    ],
)
def test_a_field_is_named_in_many_ways(head: bytes) -> None:
    assert read_form(TYPE, form((head, "mödel".encode()))).model == "mödel"


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b'multipart/form-data; boundary="a b"', b"a b"),
        (b"Multipart/Form-Data;boundary=----WebKit", b"----WebKit"),
        (b"multipart/form-data; charset=utf-8; boundary=q", b"q"),
    ],
)
def test_a_boundary_is_named_in_many_ways(content_type: bytes, boundary: bytes) -> None:
    body = form((MODEL, b"demo"), boundary=boundary)
    assert read_form(content_type, body).model == "demo"
    assert read_form(content_type, b"preamble\r\n" + body + b"epilogue").model == "demo"


def test_what_begins_like_a_boundary_is_content() -> None:
    body = form((FILE, b"\r\n--X-12\r\n\r\n--X-1 \r\n" * 50), (MODEL, b"demo"))
    assert read_form(TYPE, body).model == "demo"


@pytest.mark.parametrize("name", [b"file", b"models", b"mode", b"x-model", b"model*"])
def test_the_model_may_be_left_out(name: bytes) -> None:
    head = b'Content-Disposition: form-data; filename="name=model"; name="%b"' % name
    assert read_form(TYPE, form((head, b"demo"))).model is None
    assert read_form(TYPE, form()).model is None


@pytest.mark.parametrize("value", [b"", b"\xff", b"m" * 2000])
def test_a_model_that_is_no_name_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="model"):
        read_form(TYPE, form((MODEL, value)))


def test_two_models_are_refused() -> None:
    with pytest.raises(BadRequest, match="twice"):
        read_form(TYPE, form((MODEL, b"a"), (FILE, b""), (MODEL, b"a")))


WHOLE = form((MODEL, b"demo"), (FILE, b"content"))


@pytest.mark.parametrize("content_type", [None, b"", b"application/json", b"multipart/form-data"])
def test_another_type_is_refused(content_type: bytes | None) -> None:
    with pytest.raises(BadRequest, match="multipart/form-data"):
        read_form(content_type, WHOLE)


@pytest.mark.parametrize("length", range(len(WHOLE) - 4))
def test_a_form_that_is_not_whole_is_refused(length: int) -> None:
    with pytest.raises(BadRequest):
        read_form(TYPE, WHOLE[:length])


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(BadRequest):
        read_form(TYPE, body)


SLOW = {
    "boundaries": b"\r\n--X-1",
    "parts": b"\r\n--X-1\r\n\r\n\r\n",
    "beginnings": b"\r\n--X-",
    "hyphens": b"-",
    "line_ends": b"\r\n",
}


@pytest.mark.parametrize("piece", SLOW.values(), ids=SLOW.keys())
def test_no_step_takes_long(piece: bytes) -> None:
    body = b"--X-1\r\n" + FILE + b"\r\n\r\n" + piece * (16_000_000 // len(piece))
    reading, longest, is_read = FormBody(TYPE, body), 0.0, False
    while not is_read:
        begin = time.process_time()
        try:
            is_read = reading.step() is not None
        except BadRequest:
            is_read = True
        longest = max(longest, time.process_time() - begin)
    assert longest < 0.1


def test_a_form_may_be_let_go_of() -> None:
    reading = FormBody(TYPE, form((FILE, b"x" * 1_000_000)))
    assert reading.step() is None
    reading.close()
