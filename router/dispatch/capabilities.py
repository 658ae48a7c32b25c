"""Memory of what one build cannot do: routes, parameters and context lengths that it lacks. Pure.

A build that lacks something that the baseline has is not asked again for it while the memory lasts;
the baseline answers. A lack is noted only after the baseline answered the same request properly, so
a client cannot invent one.

Reading order: read_lack, Capabilities.lacks, Capabilities.note.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from penumbra.router import sse

FIRST_SECONDS = 10.0
"""Time for which a lack is believed when it is first proven: the build may just be starting."""
LONGEST_SECONDS = 600.0
"""Each further proof doubles the time, up to this."""
MOST_LACKS = 64
_READ_BYTES = 16 * 1024
_MOST_BYTES_A_TOKEN = 8
"""A text of so many bytes has at least one token, for all but odd texts: long runs of blanks. A
shorter prompt than this says is asked for all the same."""

_NO_ROUTE = frozenset({404, 405, 501})
_REFUSED = frozenset({400, 413, 422})
_CONTEXT = re.compile(
    r"maximum (?:context|model|input|sequence) length|context[ _]length|max_model_len"
    r"|longer than the (?:maximum|context)|exceeds? the (?:context|model)",
    re.IGNORECASE,
)
_CONTEXT_TOKENS = re.compile(
    r"(?:maximum (?:context|model) length (?:is|of)|max_model_len\D{0,3}) ?(\d{1,8})", re.IGNORECASE
)
_LACKING = re.compile(
    r"not (?:yet )?(?:support|implement|allow|permit)|unsupported|unknown|unrecogni[sz]ed"
    r"|unexpected (?:field|keyword|parameter)|extra (?:field|input)",
    re.IGNORECASE,
)
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{1,63}$")
_COMMON = frozenset(
    {"model", "messages", "prompt", "input", "stream", "system", "role", "content", "body"}
)
"""Fields of nearly every request: a build that refuses them lacks no parameter, it is broken."""

Kind = Literal["route", "parameter", "context"]


@dataclass(frozen=True, slots=True)
class Lack:
    """One thing that a build lacks."""

    kind: Kind
    name: str = ""
    """The route's path or the parameter's name."""
    tokens: int = 0
    """The context length, where the refusal names it."""


def read_lack(path: bytes, status: int, body: bytes) -> Lack | None:
    """Read the lack that a candidate's 4xx or 501 names; None if it names none.

    Args:
        path: Target of the request, query included.
        status: Status of the answer.
        body: Its body, of which the beginning is read.
    """
    body = body[:_READ_BYTES]
    if status in _NO_ROUTE and not sse.is_engine_error(body):
        return Lack("route", path.partition(b"?")[0].decode("latin-1"))
    if status not in _REFUSED:
        return None
    value = sse.read_object(body)
    if value is None:
        return None
    error = value.get("error")
    told = error if isinstance(error, dict) else value
    text = str(told.get("message") or "")
    if told.get("code") == "context_length_exceeded" or _CONTEXT.search(text):
        found = _CONTEXT_TOKENS.search(text)
        return Lack("context", tokens=int(found[1]) if found else 0)
    name = _refused_name(told)
    if name is None or not (_LACKING.search(text) or "detail" in told):
        return None
    return Lack("parameter", name)


def _refused_name(told: dict[str, object]) -> str | None:
    name = told.get("param")
    detail = told.get("detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        place = detail[0].get("loc")
        is_unknown = detail[0].get("type") == "extra_forbidden"
        name = place[-1] if is_unknown and isinstance(place, list) and place else None
    if not isinstance(name, str) or not _NAME.match(name) or name in _COMMON:
        return None
    return name


class Capabilities:
    """Memory of the lacks of one build, each believed for a while."""

    __slots__ = ("_context_tokens", "_lacks", "_parameters", "_routes")

    def __init__(self) -> None:
        self._lacks: dict[Lack, tuple[float, float]] = {}
        """Lack -> (believed until, seconds)."""
        self._routes: frozenset[bytes] = frozenset()
        self._parameters: tuple[bytes, ...] = ()
        self._context_tokens: int | None = None

    @property
    def has_any(self) -> bool:
        """Whether any lack is known."""
        return bool(self._lacks)

    def note(self, lack: Lack, now: float) -> None:
        """Remember a lack that is proven: the baseline answered the same request."""
        if len(self._lacks) >= MOST_LACKS and lack not in self._lacks:
            return
        if lack.kind == "context" and lack.tokens <= 0:
            return
        _, last = self._lacks.get(lack, (0.0, 0.0))
        seconds = min(LONGEST_SECONDS, 2 * last) or FIRST_SECONDS
        self._lacks[lack] = now + seconds, seconds
        self._read(now)

    def lacks(self, path: bytes, body: bytes, most_tokens: Any, now: float) -> bool:
        """Whether the build is believed to be unable to answer a request.

        Args:
            path: Target of the request, query included.
            body: Its body.
            most_tokens: The longest answer that it allows, as it says.
            now: Monotonic seconds.
        """
        self._read(now)
        if path.partition(b"?")[0] in self._routes:
            return True
        if any(mark in body for mark in self._parameters):
            return True
        if self._context_tokens is None:
            return False
        answer = most_tokens if isinstance(most_tokens, int) else 0
        return len(body) // _MOST_BYTES_A_TOKEN + answer > self._context_tokens

    def _read(self, now: float) -> None:
        """Read the lacks that are believed now; forget those that were last proven long ago."""
        for lack, (until, _) in list(self._lacks.items()):
            if now > until + LONGEST_SECONDS:
                del self._lacks[lack]
        believed = [lack for lack, (until, _) in self._lacks.items() if now < until]
        self._routes = frozenset(
            each.name.encode("latin-1") for each in believed if each.kind == "route"
        )
        self._parameters = tuple(
            b'"%b"' % each.name.encode("ascii") for each in believed if each.kind == "parameter"
        )
        self._context_tokens = min(
            (each.tokens for each in believed if each.kind == "context"), default=None
        )
