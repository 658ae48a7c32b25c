"""Errors of a request in the gateway, with the status and the body that the client gets.

GatewayError
├── BadRequest (400)            the request cannot be understood
│   ├── UnknownVariant (400)    a pin names no variant of the model
│   └── UnsupportedEncoding (415)
├── InvalidKey (401)
├── PinNotAllowed (403)
├── ModelNotFound (404)
├── RouteNotFound (404), MethodNotAllowed (405)
├── RequestNotFound (404)       feedback to a request that no gateway remembers
├── FeedbackExists (409)        feedback that contradicts an earlier one
├── RequestTimeout (408)        the client is too slow
├── RequestTooLarge (413), HeaderTooLarge (431)
├── RateLimited (429)
├── InternalError (500)         a fault of the gateway's own
├── UpstreamGarbage (502)
├── UpstreamUnavailable (503), ControlUnavailable (503)
└── UpstreamTimeout (504)

`code` is stable; `STATUS` maps it to the HTTP status; `error_body` is OpenAI's error shape.
"""

import json
from typing import ClassVar

from penumbra.monitoring.vocabulary import Outcome

STATUS: dict[str, int] = {
    "invalid_request": 400,
    "invalid_json": 400,
    "duplicate_field": 400,
    "unknown_variant": 400,
    "invalid_api_key": 401,
    "pin_not_allowed": 403,
    "model_not_found": 404,
    "route_not_found": 404,
    "request_not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "feedback_exists": 409,
    "request_too_large": 413,
    "unsupported_encoding": 415,
    "rate_limit_exceeded": 429,
    "header_too_large": 431,
    "internal_error": 500,
    "upstream_garbage": 502,
    "upstream_unavailable": 503,
    "control_unavailable": 503,
    "upstream_died": 502,
    "upstream_timeout": 504,
}


def error_type(status: int) -> str:
    """OpenAI's `type` for an HTTP status."""
    if status == 401:
        return "authentication_error"
    if status == 403:
        return "permission_error"
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "api_error"


def error_body(message: str, code: str, param: str | None = None) -> bytes:
    """The OpenAI error body for a stable `code` of `STATUS`."""
    error = {
        "message": message,
        "type": error_type(STATUS[code]),
        "param": param,
        "code": code,
    }
    return json.dumps({"error": error}).encode()


class GatewayError(Exception):
    """An error of the gateway's own, sent to the client in place of an answer.

    Args:
        message: Text for the client.
        code: A key of `STATUS`, if it is more exact than the class's own.
        param: The field of the request that is wrong.
        headers: Header lines added to the answer.
    """

    code: ClassVar[str]

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reported_code = code or self.code
        self.param = param
        self.headers = headers

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.reported_code]

    @property
    def body(self) -> bytes:
        """The OpenAI error body."""
        return error_body(self.message, self.reported_code, self.param)


class BadRequest(GatewayError):
    """The request cannot be understood."""

    code = "invalid_request"


class UnknownVariant(BadRequest):
    """A pin names no variant of the model."""

    code = "unknown_variant"


class UnsupportedEncoding(BadRequest):
    """The request body is compressed."""

    code = "unsupported_encoding"


class InvalidKey(GatewayError):
    """No API key, or an unknown one."""

    code = "invalid_api_key"


class PinNotAllowed(GatewayError):
    """The key may not choose a variant."""

    code = "pin_not_allowed"


class ModelNotFound(GatewayError):
    """No such model."""

    code = "model_not_found"


class RouteNotFound(GatewayError):
    """No such path."""

    code = "route_not_found"


class RequestNotFound(GatewayError):
    """Feedback to a request that no gateway remembers, or that another tenant made."""

    code = "request_not_found"


class FeedbackExists(GatewayError):
    """The request has other feedback already, which this contradicts."""

    code = "feedback_exists"


class MethodNotAllowed(GatewayError):
    """The path exists, the method does not."""

    code = "method_not_allowed"


class RequestTimeout(GatewayError):
    """The client took too long to send its request."""

    code = "request_timeout"


class RequestTooLarge(GatewayError):
    """The body is over the limit."""

    code = "request_too_large"


class HeaderTooLarge(GatewayError):
    """The head is over the limit."""

    code = "header_too_large"


class RateLimited(GatewayError):
    """The tenant is over its concurrency or its rate.

    Args:
        message: The limit that is exceeded.
        retry_after_seconds: Time until a retry can succeed; the header says at least 1 second.
    """

    code = "rate_limit_exceeded"

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        seconds = max(1, -int(-retry_after_seconds // 1))
        super().__init__(message, headers=((b"retry-after", b"%d" % seconds),))


class InternalError(GatewayError):
    """The gateway met a fault of its own; the message says nothing of it."""

    code = "internal_error"


class UpstreamGarbage(GatewayError):
    """The variant's answer cannot be used."""

    code = "upstream_garbage"


class UpstreamUnavailable(GatewayError):
    """None of the variants that may answer can be reached."""

    code = "upstream_unavailable"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers=((b"retry-after", b"1"),))


class ControlUnavailable(GatewayError):
    """The control process, which the request needs, cannot be reached now."""

    code = "control_unavailable"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers=((b"retry-after", b"1"),))


class UpstreamTimeout(GatewayError):
    """The variant did not begin its answer in time."""

    code = "upstream_timeout"


def upstream_error(outcome: Outcome) -> GatewayError:
    """The error for a client that has seen nothing when the last attempt failed with `outcome`."""
    if outcome in (Outcome.TIMEOUT, Outcome.OVERTIME):
        return UpstreamTimeout("the model did not begin its answer in time")
    if outcome is Outcome.GATEWAY_LIMIT:
        return UpstreamUnavailable("this gateway is at a limit of its own; try again")
    if outcome in (Outcome.REFUSED, Outcome.ROLLED_BACK):
        return UpstreamUnavailable("no build of this model can be reached now; try again")
    return UpstreamGarbage(f"the model's answer cannot be used ({outcome.value})")
