"""Pages by which a proxy in front of an engine refuses a request, as errors of the API. Pure.

HAProxy answers a head that it cannot take with a page of HTML. Clients of the API expect an error
object, and the page says nothing of the cause.
"""

from penumbra.router.errors import BadRequest, GatewayError, HeaderTooLarge, RequestTooLarge
from penumbra.router.gateway.error_bodies import error_body_for
from penumbra.router.gateway.headers import JSON
from penumbra.router.upstream.port import Headers

_REFUSALS: dict[int, type[GatewayError]] = {
    400: BadRequest,
    413: RequestTooLarge,
    431: HeaderTooLarge,
}
_MESSAGE = (
    "a proxy in front of the model refused the request: its head or its body is larger than the"
    " proxy takes, or has too many header lines"
)


def without_page(path: bytes, status: int, headers: Headers, body: bytes) -> tuple[Headers, bytes]:
    """The headers and the body of a refusal for its client.

    Args:
        path: The path that was asked.
        status: Status of the refusal, 400 or more.
        headers: Its headers.
        body: Its body; it stays unless it is a page of a proxy.
    """
    refusal = _REFUSALS.get(status)
    if refusal is None or not _is_page(headers):
        return headers, body
    return JSON, error_body_for(path, refusal(_MESSAGE))


def _is_page(headers: Headers) -> bool:
    return any(
        name == b"content-type" and value.lower().startswith(b"text/html")
        for name, value in headers
    )
