"""Bodies of the gateway's own errors, in the form of the API that was asked. Pure."""

import json

from penumbra.router.errors import GatewayError
from penumbra.router.gateway.hot_routes import MESSAGES

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}
"""Status -> `type` of an error of Anthropic's API."""
_FIRST_SERVER_ERROR = 500


def error_body_for(path: bytes, error: GatewayError) -> bytes:
    """The body of an error of the gateway's own.

    Args:
        path: The path that was asked: Anthropic's API has another form than OpenAI's.
        error: The error.
    """
    if not path.startswith(MESSAGES):
        return error.body
    status = error.status
    kind = "api_error" if status >= _FIRST_SERVER_ERROR else "invalid_request_error"
    inner = {"type": _TYPES.get(status, kind), "message": error.message}
    return json.dumps({"type": "error", "error": inner}).encode()
