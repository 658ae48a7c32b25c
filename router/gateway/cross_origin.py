"""Headers that let scripts of web pages read answers of the gateway (CORS).

Off unless `gateway.allowed_origins` names origins. The ASGI application answers preflights, and
answers of the hot routes get the lines of `AllowedOrigins`.
"""

from collections.abc import Iterable, Sequence

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

ANY_ORIGIN = "*"
_EXPOSED = (
    "x-request-id", "retry-after", "x-penumbra-variant", "x-penumbra-reason", "x-penumbra-epoch",
    "x-penumbra-failover",
)  # fmt: skip


class AllowedOrigins:
    """The header lines for each allowed origin, made once.

    Args:
        origins: Origins whose pages may read answers; `*` is every origin.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        exposed = f"access-control-expose-headers: {', '.join(_EXPOSED)}\r\n"
        allowed = {
            origin.encode(): f"access-control-allow-origin: {origin}\r\n{exposed}".encode()
            for origin in origins
        }
        self._of_any = allowed.get(ANY_ORIGIN.encode())
        self._lines = {origin: lines + b"vary: origin\r\n" for origin, lines in allowed.items()}

    def lines(self, origin: bytes | None) -> bytes:
        """The header lines of an answer to a request of this origin; None is no page's request."""
        if self._of_any is not None:
            return b"" if origin is None else self._of_any
        # An answer without the lines must not be cached for a page that gets them either.
        return self._lines.get(origin or b"", b"vary: origin\r\n")


def cross_origin_middleware(origins: Sequence[str]) -> list[Middleware]:
    """Middleware of the ASGI application for these origins; empty if there are none."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=_EXPOSED,
        )
    ]
