"""One request on a hot route, as it was read from its client."""

import msgspec

from penumbra.router.upstream.port import Headers


class IncomingRequest(msgspec.Struct, frozen=True):
    """A request whose body is complete; everything that decides it except its caller."""

    path: bytes
    """Target in origin form, query included."""
    headers: dict[bytes, bytes]
    """Header values by name in lower case, of repeated lines the last; for look-ups."""
    body: bytes
    request_id: bytes
    """The client's own `x-request-id` if it is valid, else `own_id`."""
    lines: Headers
    """All header lines in order; tracing a request removes its trace context here and above."""
    own_id: bytes
    """The id that this process made, which no client can choose: by it a request is drawn."""
