"""A form with a file, as audio routes get it: the model that it names, read in steps. Pure.

Only the boundaries of the form and the names of its fields are looked at; the bytes stay as they
came.
"""

import re
from collections.abc import Generator, Iterator

from penumbra.router.errors import BadRequest
from penumbra.router.gateway.body_peek import BodyPeek

_STEP_BYTES = 256 * 1024
"""Bytes that are searched at once: 5 ms where they are made to be searched slowly."""
_LONGEST_HEAD_BYTES = 4096
_MOST_BOUNDARIES = 1024
"""More than any form has, lines included that only begin as a boundary does."""
_LONGEST_MODEL_BYTES = 1024
_TYPE = re.compile(
    rb"multipart/form-data[ \t]*;(?:[^\r\n]*?;)?[ \t]*"
    rb"boundary=(?:\"([^\"\r\n]{1,70})\"|([^\s;\"]{1,70}))",
    re.IGNORECASE,
)
_DISPOSITION = re.compile(rb"\r\ncontent-disposition:([^\r\n]*)", re.IGNORECASE)
_PARAMETER = re.compile(rb";[ \t]*([\w*-]+)=(\"(?:[^\"\\]|\\.)*\"|[^;\s]*)")


class FormBody:
    """The reading of one form; its `model` may be left out.

    Args:
        content_type: The header of this name.
        body: The form.
    """

    def __init__(self, content_type: bytes | None, body: bytes) -> None:
        self._steps = _read(content_type, body)

    def step(self) -> BodyPeek | None:
        """Go on for a bounded time; return the peek when it is complete.

        Raises:
            BadRequest: The body is no whole form, or has the field twice.
        """
        return next(self._steps)

    def close(self) -> None:
        """Let go of the body, which is not read to the end."""
        self._steps.close()


def _read(content_type: bytes | None, body: bytes) -> Generator[BodyPeek | None, None, None]:
    found = _TYPE.match(content_type or b"")
    if found is None:
        raise BadRequest("the content-type is not multipart/form-data with a boundary")
    model: str | None = None
    for part in _parts(b"--" + (found[1] or found[2]), body):
        if part is None:
            yield None
            continue
        head, start, end = part
        if _name_of(head) != b"model":
            continue
        if model is not None:
            raise BadRequest("`model` appears twice", code="duplicate_field", param="model")
        model = _model(body[start : min(end, start + _LONGEST_MODEL_BYTES + 1)])
    yield BodyPeek(model=model)


def _parts(delimiter: bytes, body: bytes) -> Iterator[tuple[bytes, int, int] | None]:
    """Head of each part, first byte of its content and the one behind it; None after a step."""
    line = b"\r\n" + delimiter
    search = _Search(body, line)
    if body.startswith(delimiter):
        at = len(delimiter)
    else:  # text before the first boundary is no part
        yield from search.run(0)
        at = search.found + len(line)
    while not body.startswith(b"--", at):
        end_of_head = body.find(b"\r\n\r\n", at, at + _LONGEST_HEAD_BYTES)
        if end_of_head < 0:
            raise BadRequest("the body is not a form: a part has no head")
        # The line end in front of the boundary is that of the head, if the content is empty.
        yield from search.run(end_of_head + 2)
        yield body[at:end_of_head], end_of_head + 4, search.found
        at = search.found + len(line)


class _Search:
    """The search for boundaries in a form.

    Args:
        body: The form.
        line: Line end, two hyphens and the boundary.
    """

    def __init__(self, body: bytes, line: bytes) -> None:
        self.found = 0
        """Where the last boundary begins that was found."""
        self._body = body
        self._line = line
        self._left = _MOST_BOUNDARIES

    def run(self, start: int) -> Iterator[None]:
        """Search from `start` on; yields after each step.

        Raises:
            BadRequest: There is none, or there were too many.
        """
        body, line = self._body, self._line
        while start < len(body):
            at = body.find(line, start, start + _STEP_BYTES + len(line))
            if at < 0:
                start += _STEP_BYTES
                yield None
                continue
            self._left -= 1
            if self._left < 0:
                raise BadRequest("the body is a form of too many parts")
            start = at + len(line)
            # Else it is the boundary of another form, which begins in the same way.
            if body.startswith((b"\r\n", b"--"), start):
                self.found = at
                return
        raise BadRequest("the body is not a whole form: its last boundary is missing")


def _name_of(head: bytes) -> bytes | None:
    disposition = _DISPOSITION.search(head)
    if disposition is None:
        return None
    names = [
        value.strip(b'"')
        for name, value in _PARAMETER.findall(disposition[1])
        if name.lower() == b"name"
    ]
    return names[0] if names else None


def _model(value: bytes) -> str:
    try:
        model = value.decode() if len(value) <= _LONGEST_MODEL_BYTES else ""
    except UnicodeDecodeError:
        model = ""
    if not model:
        raise BadRequest("`model` is not the name of a model", param="model")
    return model
