"""Facts about one request: those that decide it, and those that its mirrored copy carries.

Header values are decoded only where a rule or the targeting key looks at them.
"""

from penumbra.router.errors import GatewayError, PinNotAllowed, UnknownVariant
from penumbra.router.flags.evaluate import PIN_NOT_ALLOWED, Context, Decision
from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.request_routes import route_of
from penumbra.router.flags.slices import slice_of
from penumbra.router.flags.targeting_key import root_hash, targeting_key
from penumbra.router.gateway.api_keys import Caller
from penumbra.router.gateway.body_peek import BodyPeek
from penumbra.router.gateway.compiled_table import Model, Routed
from penumbra.router.gateway.headers import TextHeaders, text_of
from penumbra.router.gateway.incoming_request import IncomingRequest
from penumbra.router.gateway.request_trace import RequestTrace
from penumbra.router.link.response_homes import ResponseHomes
from penumbra.router.mirror.comparable import is_comparable
from penumbra.router.mirror.selection import hash64, session_hash
from penumbra.router.mirror.session import RequestFacts


def build_context(
    request: IncomingRequest,
    caller: Caller,
    peek: BodyPeek,
    model: Model,
    homes: ResponseHomes,
    *,
    is_lease_fresh: bool,
) -> Context:
    """The context that the model's flag is evaluated in, the request's slice included.

    Args:
        request: The request.
        caller: The key that it came with.
        peek: What was read of its body.
        model: Its model.
        homes: Where responses were made that requests go on from.
        is_lease_fresh: Whether candidates may get live traffic.
    """
    raw = request.headers
    headers = TextHeaders(raw)
    tenant = caller.tenant.name
    route = route_of(request.path)
    features = RequestFeatures(peek.parts, len(request.body), peek.least_chars, route=route)
    is_watched = model.compiled.is_watched
    named, pin = raw.get(b"x-penumbra-slice"), raw.get(b"x-penumbra-variant")
    key = ""
    if model.compiled.needs_key:
        sticky_headers = model.snapshot.sticky_headers
        key = targeting_key(headers, peek, sticky_headers, caller.key_id, request.body)
    return Context(
        model=peek.model,
        tenant=tenant,
        headers=headers,
        targeting_key=key,
        slice=slice_of(
            model.compiled.slices,
            tenant,
            headers,
            features,
            None if named is None else text_of(named),
            model.compiled.quarantined,
        ),
        request_id=request.own_id.decode("ascii"),
        pin=None if pin is None else text_of(pin),
        may_pin=caller.may_pin,
        features=features,
        is_lease_fresh=is_lease_fresh,
        is_comparable=not is_watched or is_comparable(route, peek, request.body),
        home=None if peek.previous_response_id is None else _home_of(peek, tenant, homes),
    )


def _home_of(peek: BodyPeek, tenant: str, homes: ResponseHomes) -> str | None:
    found = homes.find(peek.previous_response_id, tenant)
    return found.variant if found is not None and found.model == peek.model else None


def build_facts(
    request: IncomingRequest,
    caller: Caller,
    peek: BodyPeek,
    routed: Routed,
    trace: RequestTrace | None,
) -> RequestFacts:
    """The facts by which the comparator knows a mirrored request."""
    prompt = bytes(peek.messages or peek.prompt or peek.input)
    return RequestFacts(
        request_id=request.request_id,
        own_id=request.own_id,
        model=peek.model,
        slice_name=routed.plan.slice_name,
        epoch=routed.model.epoch,
        prompt_hash=hash64(prompt),
        root=hash64(root_hash(peek).encode()),
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
