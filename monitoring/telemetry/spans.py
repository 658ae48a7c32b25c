"""All spans that Penumbra records: names, attributes, events, allowed values. Pure.

No attribute has free text: names from the configuration, closed sets, numbers and ids.
"""

from dataclasses import dataclass
from enum import StrEnum

from penumbra.monitoring.signals.harm import Check
from penumbra.monitoring.telemetry import labels as of
from penumbra.monitoring.telemetry.metric import Process
from penumbra.monitoring.tracing import semconv
from penumbra.monitoring.tracing.span import SpanKind
from penumbra.monitoring.vocabulary import Outcome, Reason


class Type(StrEnum):
    """Type of an attribute's value."""

    STRING = "string"
    INT = "int"
    DOUBLE = "double"
    BOOL = "bool"
    STRINGS = "string[]"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of spans or events."""

    name: str
    type: Type
    help: str
    """One sentence, with a full stop."""
    values: tuple[str, ...] = ()
    """Every value there is; empty: names from the configuration, numbers, ids."""


@dataclass(frozen=True, slots=True)
class EventDefinition:
    """Something that happens within a span."""

    name: str
    help: str
    attributes: tuple[Attribute, ...] = ()


@dataclass(frozen=True, slots=True)
class SpanDefinition:
    """One kind of span."""

    name: str
    """The span's name; parts in braces are filled in."""
    kind: SpanKind
    process: Process
    help: str
    attributes: tuple[Attribute, ...]
    events: tuple[EventDefinition, ...] = ()


def _text(name: str, text: str, *values: str) -> Attribute:
    return Attribute(name, Type.STRING, text, values)


def _number(name: str, text: str) -> Attribute:
    return Attribute(name, Type.DOUBLE, text)


def _count(name: str, text: str) -> Attribute:
    return Attribute(name, Type.INT, text)


def _flag(name: str, text: str) -> Attribute:
    return Attribute(name, Type.BOOL, text)


_OUTCOMES = tuple(outcome.value for outcome in Outcome)
_PROVIDERS = (semconv.GATEWAY, semconv.ENGINE)

OPERATION = _text(
    semconv.OPERATION, "What was asked for.", *dict.fromkeys(semconv.OPERATIONS.values())
)
PROVIDER = _text(semconv.PROVIDER, "Who answers: the gateway, or an engine behind it.", *_PROVIDERS)
SYSTEM = _text(
    semconv.SYSTEM,
    "The older name of the provider, unless only the latest are wanted.",
    *_PROVIDERS,
)
REQUEST_MODEL = _text(semconv.REQUEST_MODEL, "The public name of the model, if it is served here.")
ERROR_TYPE = _text(
    semconv.ERROR_TYPE, "The code of the gateway's own error, or how the attempt failed."
)
VARIANT = _text("penumbra.variant", "The build that answered, by its name in the configuration.")
ROLE = _text("penumbra.role", "Whether that is the model's baseline.", *of.ROLE.values)
SLICE = _text("penumbra.slice", "The named part of the traffic.")
EPOCH = _count("penumbra.epoch", "Version of the routing table.")
REQUEST_ID = _text("penumbra.request_id", "The `x-request-id` of the answer.")
MODEL = _text("penumbra.model", "The public name of the model.")
CANDIDATE = _text("penumbra.candidate", "The build that the rollout is about.")
FROM_VARIANT = _text("penumbra.from_variant", "The build that failed first.")
OUTCOME = _text("penumbra.outcome", "How the attempt ended.", *_OUTCOMES)

_INFERENCE = (OPERATION, PROVIDER, SYSTEM, REQUEST_MODEL)

REQUEST = SpanDefinition(
    "{operation} {model}",
    SpanKind.SERVER,
    Process.GATEWAY,
    "One request, from its last byte read to the last byte of its answer written.",
    (
        *_INFERENCE,
        _text(semconv.HTTP_ROUTE, "The route that was asked.", *semconv.OPERATIONS),
        _count(semconv.HTTP_STATUS, "The status of the answer; missing if none was begun."),
        ERROR_TYPE,
        _count(semconv.INPUT_TOKENS, "Tokens of the prompt, of an answer that was no stream."),
        _count(semconv.OUTPUT_TOKENS, "Tokens of the answer, if it was no stream."),
        REQUEST_ID,
        VARIANT,
        ROLE,
        SLICE,
        EPOCH,
        _text(
            "penumbra.failover", "How the first attempt failed, if another answered.", *_OUTCOMES
        ),
        _flag("penumbra.is_continued", "Whether another build continued a stream that broke off."),
        _flag("penumbra.is_mirrored", "Whether the request was chosen for comparison."),
    ),
    (
        EventDefinition(
            semconv.FLAG_EVALUATION,
            "The decision which build is to answer.",
            (
                _text(semconv.FLAG_KEY, "The model, whose flag it is."),
                _text(semconv.FLAG_PROVIDER, "Always `penumbra`.", semconv.GATEWAY),
                _text(semconv.FLAG_VARIANT, "The build that was chosen."),
                _text(
                    semconv.FLAG_REASON,
                    "Why, in the conventions' lower case.",
                    *(reason.value.lower() for reason in Reason),
                ),
                _text(semconv.FLAG_VERSION, "The epoch, as text."),
                SLICE,
            ),
        ),
        EventDefinition("first_byte", "The answer to the client began."),
        EventDefinition(
            "failover",
            "Another attempt took over before the answer began.",
            (FROM_VARIANT, OUTCOME),
        ),
        EventDefinition(
            "continuation", "A stream broke off, and the baseline went on.", (FROM_VARIANT, OUTCOME)
        ),
    ),
)
ATTEMPT = SpanDefinition(
    "attempt {variant}",
    SpanKind.CLIENT,
    Process.GATEWAY,
    "One attempt at a build; the build gets this span as its parent.",
    (
        *_INFERENCE,
        _text(semconv.SERVER_ADDRESS, "Host of the build, from the configuration."),
        _count(semconv.SERVER_PORT, "Its port."),
        ERROR_TYPE,
        VARIANT,
        ROLE,
        OUTCOME,
        _flag("penumbra.is_continuation", "Whether it is the rest of a stream that broke off."),
    ),
)

_TURN = (
    VARIANT,
    _flag("penumbra.is_again", "Whether it is the baseline's second turn, for the A/A arm."),
    ERROR_TYPE,
)

PAIR = SpanDefinition(
    "shadow pair",
    SpanKind.INTERNAL,
    Process.COMPARATOR,
    "The comparison of one mirrored request; linked to the request's span.",
    (
        MODEL,
        CANDIDATE,
        SLICE,
        EPOCH,
        REQUEST_ID,
        VARIANT,
        _number("penumbra.engine_seconds", "What the comparison cost, all candidates together."),
        _count("penumbra.tokens", "Response tokens that were scored."),
        _number("penumbra.displacement", "Of the candidate from the baseline, 0 to 1."),
        _number("penumbra.kl", "Mean divergence over the tokens, nats."),
        _number("penumbra.agreement", "Share of the tokens that both would have chosen."),
        _count("penumbra.harm", "-1 better, 0 same, 1 worse, by the harm checks."),
        Attribute(
            "penumbra.failed_checks",
            Type.STRINGS,
            "Harm checks that the candidate failed.",
            tuple(check.value for check in Check),
        ),
        _text("penumbra.missing", "Why the candidate gave nothing usable, if it did not."),
        _number("penumbra.aa_displacement", "Of the baseline from itself, if it was asked again."),
        _text("penumbra.shed_reason", "Why there is no pair.", *of.SHED_REASON.values),
    ),
)
SCORE = SpanDefinition(
    "score {variant}",
    SpanKind.CLIENT,
    Process.COMPARATOR,
    "A build scored the tokens of the answer.",
    _TURN,
)
GENERATE = SpanDefinition(
    "generate {variant}",
    SpanKind.CLIENT,
    Process.COMPARATOR,
    "A build answered the request again, for the harm checks.",
    _TURN,
)

CHANGE = SpanDefinition(
    "rollout change",
    SpanKind.INTERNAL,
    Process.CONTROL,
    "A verdict or a decision changed a rollout; from the decision to the durable event.",
    (
        MODEL,
        CANDIDATE,
        EPOCH,
        _text("penumbra.change", "What became of the rollout.", *of.CHANGE.values),
        _text("penumbra.stage", "The stage it is at now."),
        _text("penumbra.verdict", "What the evidence says now.", *of.VERDICT.values),
        _text("penumbra.actor_kind", "Who decided.", *of.ACTOR.values),
    ),
)
ROLLBACK = SpanDefinition(
    "rollback",
    SpanKind.INTERNAL,
    Process.CONTROL,
    "Traffic was taken away; from the deciding observation to the last acknowledgement.",
    (
        MODEL,
        CANDIDATE,
        EPOCH,
        _text("penumbra.action", "What was taken away: all, or slices.", "rollback", "quarantine"),
        _text("penumbra.signal", "The signal that decided; missing if a person did."),
        _number("penumbra.evidence", "What had been bet against the candidate came to this."),
        _number("penumbra.boundary", "The evidence at which traffic is taken away."),
        Attribute("penumbra.culprits", Type.STRINGS, "Slices that are beyond tolerance."),
        _count("penumbra.pairs", "Pairs of the run so far."),
        _count("penumbra.gateways", "Gateways that were to acknowledge."),
        _flag("penumbra.is_acknowledged", "Whether all of them did, in time."),
    ),
    (EventDefinition("durable", "The event was in the store."),),
)

SPANS = (REQUEST, ATTEMPT, PAIR, SCORE, GENERATE, CHANGE, ROLLBACK)
