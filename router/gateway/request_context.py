"""Facts about one request: those that decide it, and those that its mirrored copy carries.

Header values are decoded only where a rule or the targeting key looks at them.
"""

from penumbra.router.errors import GatewayError, PinNotAllowed, UnknownVariant
from penumbra.router.flags.evaluate import PIN_NOT_ALLOWED, Context, Decision, targeting_key
from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.slices import slice_of
from penumbra.router.gateway.api_keys import Caller
from penumbra.router.gateway.body_peek import BodyPeek
from penumbra.router.gateway.compiled_table import Model, Routed
from penumbra.router.gateway.headers import TextHeaders
from penumbra.router.gateway.incoming_request import IncomingRequest
from penumbra.router.gateway.request_trace import RequestTrace
from penumbra.router.mirror.selection import hash64, session_hash
from penumbra.router.mirror.session import RequestFacts


def build_context(
    request: IncomingRequest, caller: Caller, peek: BodyPeek, model: Model, *, is_lease_fresh: bool
) -> Context:
    """The context that the model's flag is evaluated in, the request's slice included."""
    raw = request.headers
    headers = TextHeaders(raw)
    tenant = caller.tenant.name
    features = RequestFeatures(peek.parts, len(request.body))
    named = _text(raw.get(b"x-penumbra-slice"))
    return Context(
        model=peek.model,
        tenant=tenant,
        headers=headers,
        targeting_key=targeting_key(
            _text(raw.get(b"x-user-id")),
            _text(raw.get(b"x-session-id")),
            peek.user if isinstance(peek.user, str) else None,
            caller.key_id,
            peek.prompt_hash,
        ),
        slice=slice_of(
            model.compiled.slices,
            tenant,
            headers,
            features,
            named,
            model.snapshot.flag.quarantined,
        ),
        request_id=request.request_id.decode("latin-1"),
        pin=_text(raw.get(b"x-penumbra-variant")),
        may_pin=caller.may_pin,
        features=features,
        is_lease_fresh=is_lease_fresh,
    )


def build_facts(
    request: IncomingRequest,
    caller: Caller,
    peek: BodyPeek,
    routed: Routed,
    trace: RequestTrace | None,
) -> RequestFacts:
    """The facts by which the comparator knows a mirrored request."""
    prompt = bytes(peek.messages or peek.prompt)
    return RequestFacts(
        request_id=request.request_id,
        model=peek.model,
        slice_name=routed.plan.slice_name,
        epoch=routed.model.epoch,
        prompt_hash=hash64(prompt),
        session=session_hash(caller.tenant.name, request.headers.get(b"x-session-id")),
        trace=trace.context.header if trace is not None else "",
    )


def refused_decision(decision: Decision, context: Context, model: Model) -> GatewayError:
    """The error of a decision that refuses the client's pin."""
    if decision.error_code == PIN_NOT_ALLOWED:
        return PinNotAllowed("this key may not choose a variant (may_pin)")
    known = ", ".join(sorted(model.attempts))
    return UnknownVariant(
        f"x-penumbra-variant is {context.pin!r}, wanted one of: {known}",
        param="x-penumbra-variant",
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
