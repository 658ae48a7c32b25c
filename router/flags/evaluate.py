"""Flag evaluation: decides which variant answers a request, and for which reason. Pure.

`evaluate` never raises and takes some microseconds. A request has a *wish*: the variant of the
first of a pin, a targeting rule, the split, the baseline. The following overrule it
(penumbra.monitoring.vocabulary.Reason, in order):

    GUARD           the wish is a candidate that the guard blocked              -> baseline
    LEASE_EXPIRED   the wish is a candidate and the guard's lease is not fresh,
                    or not for this candidate                                   -> baseline
    KILL_SWITCH     the flag is killed, whatever the wish                       -> baseline
    QUARANTINE      the slice is quarantined, whatever the wish; or the wish is
                    a candidate that may not answer in it                       -> baseline
    UNCOMPARED      the wish is a candidate by the split, under a rollout that
                    has not compared such requests, or cannot, or whose scope
                    they are not in                                             -> baseline
    otherwise       the wish, for its own reason

A request that goes on from a response of one build wishes that build, as if it were pinned to it.

So GUARD and LEASE_EXPIRED are reported exactly where they changed the answer, and so is the
QUARANTINE of one candidate, whose requests the baseline answers and never another candidate.
KILL_SWITCH and the QUARANTINE of a whole slice are reported on every request that they cover, also
one that the baseline would have answered anyway. SPLIT is reported on both sides of a split. A
request that cannot be evaluated gets the baseline, reason ERROR; the error codes of `CLIENT_ERRORS`
are the request's own fault, and no answer for it exists.

Reading order: evaluate, CompiledModel.decide, CompiledModel.wish.
"""

from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from penumbra.monitoring.vocabulary import Reason
from penumbra.router.flags.bucketing import Line, intervals, position, salt
from penumbra.router.flags.released_channels import ReleasedChannels
from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Rule, Snapshot
from penumbra.router.flags.slices import CompiledSlices, Condition, Headers, compile_match

MODEL_NOT_FOUND = "model_not_found"
UNKNOWN_VARIANT = "unknown_variant"
PIN_NOT_ALLOWED = "pin_not_allowed"
FLAG_INVALID = "flag_invalid"
"""The flag refers to something that does not exist; `validate.validate_flag` names it."""
TARGETING_KEY_MISSING = "targeting_key_missing"
EVALUATION_FAILED = "evaluation_failed"

CLIENT_ERRORS = frozenset({MODEL_NOT_FOUND, UNKNOWN_VARIANT, PIN_NOT_ALLOWED})
"""Error codes with which the request is refused; with any other the baseline answers."""


class Context(msgspec.Struct):
    """Facts of one request that decide its variant."""

    model: str
    tenant: str
    headers: Headers
    targeting_key: str
    """See `penumbra.router.flags.targeting_key`; may be empty where `CompiledModel.needs_key` is
    False."""
    slice: str
    request_id: str
    """The gateway's own id of the request, never one that a client chose."""
    features: RequestFeatures
    pin: str | None = None
    """The variant that the request asks for (`x-penumbra-variant`)."""
    may_pin: bool = False
    is_lease_fresh: bool = True
    unguarded: Collection[str] = ()
    """Candidates that the model's lease is not for (`penumbra.router.link.lease`)."""
    is_comparable: bool = True
    """Whether rollouts can compare it (`penumbra.router.mirror.comparable`)."""
    home: str | None = None
    """The variant that holds the history which the request goes on from, if that is known."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The variant that answers a request, and the reason."""

    variant: str
    """Empty if the model is unknown."""
    reason: Reason
    rule: str | None = None
    """Name of the targeting rule that matched."""
    error_code: str | None = None


_UNKNOWN_MODEL = Decision("", Reason.ERROR, error_code=MODEL_NOT_FOUND)


def evaluate(table: "Snapshot | CompiledModel", context: Context) -> Decision:
    """Decide one request. Never raises.

    Args:
        table: The context's model, compiled (the fast way), or a whole snapshot (to replay).
        context: The request.
    """
    if isinstance(table, Snapshot):
        model = table.models.get(context.model)
        if model is None:
            return _UNKNOWN_MODEL
        table = compile_model(context.model, model)
    try:
        return table.decide(context)
    except Exception:  # noqa: BLE001 - total by contract: a request is never lost to its flag
        return Decision(table.baseline, Reason.ERROR, error_code=EVALUATION_FAILED)


def compile_model(name: str, model: ModelSnapshot) -> "CompiledModel":
    """Prepare one model of a snapshot for `evaluate`. Never raises."""
    return CompiledModel(name, model)


class CompiledModel:
    """The flag and the slices of one model, with everything computed that no request changes."""

    __slots__ = (
        "_blocked", "_closed", "_decisions", "_flag", "_is_invalid", "_key_pins", "_line",
        "_released", "_rules", "_salt", "_scopes", "_tenant_pins", "_variants", "baseline",
        "is_watched", "needs_key", "quarantined", "slices",
    )  # fmt: skip

    def __init__(self, name: str, model: ModelSnapshot) -> None:
        flag = model.flag
        self.baseline = model.baseline
        self.slices = CompiledSlices(model.slices)
        self._variants = frozenset(model.variants)
        self._released = {
            watch.candidate: ReleasedChannels(watch.released) for watch in model.watches
        }
        self._scopes = {
            watch.candidate: compile_match(watch.scope.match())
            for watch in model.watches
            if watch.scope is not None
        }
        self.is_watched = bool(self._released)
        """Whether a rollout watches a candidate; else it makes no difference what is compared."""
        self._flag = flag
        self._blocked = frozenset(flag.blocked)
        self._closed = {
            name: frozenset(names) for name, names in flag.quarantined_for.items() if names
        }
        self.quarantined = flag.quarantined_for_any
        """Slices in which at least one candidate may not answer."""
        self._key_pins = {pin.subject: pin.variant for pin in flag.pins if pin.kind == "key"}
        self._tenant_pins = {pin.subject: pin.variant for pin in flag.pins if pin.kind == "tenant"}
        self._salt = salt(name)
        self._decisions: dict[tuple[str, Reason, str | None, str | None], Decision] = {}
        self._line: Line | None = None
        self._rules: tuple[_CompiledRule, ...] = ()
        self._is_invalid = False
        self.needs_key = bool(self._key_pins)
        """Whether a targeting key can make a difference: without one it need not be made."""
        try:
            self._line = _line(flag.split, model)
            self._rules = tuple(_CompiledRule(rule, model) for rule in flag.rules)
            _require_variants(flag, model)
            lines = (self._line, *(rule.line for rule in self._rules))
            self.needs_key = self.needs_key or any(line is not None for line in lines)
        except ValueError:
            # Such a flag is refused on write; if one arrives all the same, the baseline is safe.
            self._is_invalid = True

    def decide(self, context: Context) -> Decision:
        """Decide a request of this model. May raise; `evaluate` does not."""
        if context.pin or self._is_invalid:
            problem = self._problem(context)
            if problem is not None:
                return self._decision(self.baseline, Reason.ERROR, error_code=problem)
        wish = self.wish(context) if context.home is None else self._wish_at_home(context)
        reason = self._overruled_for(wish, context)
        return wish if reason is None else self._decision(self.baseline, reason)

    def _overruled_for(self, wish: Decision, context: Context) -> Reason | None:
        """Return why the baseline answers in place of the wish; None: the wish stands."""
        if wish.variant != self.baseline:
            if wish.variant in self._blocked:
                return Reason.GUARD
            if not context.is_lease_fresh or wish.variant in context.unguarded:
                return Reason.LEASE_EXPIRED
        if self._flag.killed:
            return Reason.KILL_SWITCH
        is_closed = self._closed and self._is_closed(wish.variant, context)
        if is_closed or context.slice in self._flag.quarantined:
            return Reason.QUARANTINE
        # A rollout gives no share of what it has not compared; pins and rules are the operators'.
        released = self._released.get(wish.variant) if wish.reason is Reason.SPLIT else None
        if released is None or context.home == wish.variant:  # only there is its history
            return None
        is_released = context.is_comparable and released.hold(context.slice, context.features)
        is_released = is_released and self._is_in_scope(wish.variant, context)
        return None if is_released else Reason.UNCOMPARED

    def _is_in_scope(self, candidate: str, context: Context) -> bool:
        scope = self._scopes.get(candidate)
        if scope is None:
            return True
        return scope(context.features, context.tenant, context.headers, context.slice)

    def outside(self, context: Context) -> tuple[str, ...]:
        """The watched candidates whose rollouts are not about such a request."""
        if not self._scopes:
            return ()
        return tuple(name for name in self._scopes if not self._is_in_scope(name, context))

    def _is_closed(self, variant: str, context: Context) -> bool:
        """Whether a candidate may not answer in the request's slice.

        A body that a rule could not read may be in any slice, also in one of these.
        """
        closed = self._closed.get(variant)
        return closed is not None and (context.slice in closed or context.features.is_unreadable)

    def wish(self, context: Context) -> Decision:
        """Return the decision by pin, rule, split and default, before anything overrules it."""
        pinned = (
            context.pin
            or self._key_pins.get(context.targeting_key)
            or self._tenant_pins.get(context.tenant)
        )
        if pinned:
            return self._decision(pinned, Reason.PIN)
        for rule in self._rules:
            if rule.condition(context.features, context.tenant, context.headers, context.slice):
                return self._apply_rule(rule, context)
        if self._line is not None:
            return self._draw(self._line, context, Reason.SPLIT, None)
        return self._decision(self.baseline, Reason.DEFAULT)

    def _wish_at_home(self, context: Context) -> Decision:
        """Return the decision for a request whose history is at one build, which has to answer it.

        Where that build is out of service, the request is decided as any other.
        """
        wish, home = self.wish(context), context.home
        if context.pin or home is None or home == wish.variant or home in self._blocked:
            return wish
        return self._decision(home, Reason.PIN) if home in self._variants else wish

    def _apply_rule(self, rule: "_CompiledRule", context: Context) -> Decision:
        if rule.variant is not None:
            return self._decision(rule.variant, Reason.TARGETING_MATCH, rule.name)
        if rule.line is None:
            return self._decision(self.baseline, Reason.TARGETING_MATCH, rule.name)
        return self._draw(rule.line, context, Reason.TARGETING_MATCH, rule.name)

    def _draw(self, line: Line, context: Context, reason: Reason, rule: str | None) -> Decision:
        if not context.targeting_key:
            return self._decision(
                self.baseline, Reason.ERROR, rule, error_code=TARGETING_KEY_MISSING
            )
        point = position(self._salt, context.targeting_key)
        return self._decision(line.variant_at(point), reason, rule)

    def _problem(self, context: Context) -> str | None:
        """The error code of a request that no decision can be made for."""
        if context.pin and not context.may_pin:
            return PIN_NOT_ALLOWED
        if context.pin and context.pin not in self._variants:
            return UNKNOWN_VARIANT
        return FLAG_INVALID if self._is_invalid else None

    def _decision(
        self, variant: str, reason: Reason, rule: str | None = None, error_code: str | None = None
    ) -> Decision:
        # There are only as many decisions as variants, reasons and rules: each is made once.
        key = (variant, reason, rule, error_code)
        found = self._decisions.get(key)
        if found is None:
            found = self._decisions[key] = Decision(variant, reason, rule, error_code)
        return found


class _CompiledRule:
    __slots__ = ("condition", "line", "name", "variant")

    def __init__(self, rule: Rule, model: ModelSnapshot) -> None:
        self.name = rule.name
        self.condition: Condition = compile_match(rule.match)
        self.variant = rule.variant
        self.line = None if rule.split is None else _line(rule.split, model)
        if (rule.variant is None) == (rule.split is None):
            raise ValueError("a rule has either a variant or a split")


def _line(split: dict[str, float], model: ModelSnapshot) -> Line | None:
    laid = intervals(split, model.baseline, model.variants, model.places)
    has_share = any(variant != model.baseline for variant, _ in laid)
    return Line(laid) if has_share else None


def _require_variants(flag: Flag, model: ModelSnapshot) -> None:
    named = {pin.variant for pin in flag.pins} | {model.baseline}
    named |= {rule.variant for rule in flag.rules if rule.variant is not None}
    if not named <= model.variants.keys():
        raise ValueError("a variant that does not exist")
