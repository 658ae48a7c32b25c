"""The routing table compiled for requests, once for each epoch, and one request routed by it.

Values that many requests share (plans, header lines, attributions) are made on first use and
cached.
"""

import msgspec

from penumbra.monitoring.vocabulary import Outcome, Reason
from penumbra.router.dispatch.attempt import Attempt
from penumbra.router.dispatch.plan import Plan, plan
from penumbra.router.dispatch.request_shape import RequestShape
from penumbra.router.dispatch.services import DispatchServices
from penumbra.router.flags.evaluate import CompiledModel, Decision
from penumbra.router.flags.routing_table import ModelSnapshot
from penumbra.router.link.messages import Attribution
from penumbra.router.mirror.selection import compile_mirror
from penumbra.router.mirror.session import MirrorSession
from penumbra.router.upstream.port import UpstreamRequest


class Model:
    """One model of a table: its flag ready to evaluate, its variants ready to be tried."""

    __slots__ = (
        "_attributions",
        "_lines",
        "_plans",
        "attempts",
        "compiled",
        "epoch",
        "mirror",
        "name",
        "services",
        "snapshot",
    )

    def __init__(
        self,
        name: str,
        epoch: int,
        compiled: CompiledModel,
        snapshot: ModelSnapshot,
        attempts: dict[str, Attempt],
        services: DispatchServices,
    ) -> None:
        self.name = name
        self.epoch = epoch
        self.compiled = compiled
        self.snapshot = snapshot
        self.attempts = attempts
        self.services = services
        self.mirror = compile_mirror(name, snapshot)
        self._lines: dict[tuple[str, Reason], bytes] = {}
        self._plans: dict[tuple[str, str, bool], Plan] = {}
        self._attributions: dict[tuple[str, str, str], tuple[Attribution, str]] = {}

    def plan(self, decision: Decision, slice_name: str, *, is_lease_fresh: bool) -> Plan:
        """The plan for a decision; there are few plans, and each is made once."""
        key = (decision.variant, slice_name, is_lease_fresh)
        found = self._plans.get(key)
        if found is None:
            found = plan(decision, self.snapshot, slice_name, is_lease_fresh=is_lease_fresh)
            self._plans[key] = found
        return found

    def attribution(self, variant: str, slice_name: str, tenant: str) -> tuple[Attribution, str]:
        """The attribution of an answer and the tenant that asked; shared by all such requests."""
        key = (variant, slice_name, tenant)
        found = self._attributions.get(key)
        if found is None:
            found = Attribution(self.name, variant, slice_name), tenant
            self._attributions[key] = found
        return found

    def answer_lines(self, variant: str, reason: Reason) -> bytes:
        """The header lines that name the variant that answered, the reason and the epoch."""
        lines = self._lines.get((variant, reason))
        if lines is None:
            text = (
                f"x-penumbra-variant: {variant}\r\n"
                f"x-penumbra-reason: {reason.value}\r\n"
                f"x-penumbra-epoch: {self.epoch}\r\n"
            )
            lines = self._lines[variant, reason] = text.encode("ascii")
        return lines


class Routed(msgspec.Struct):
    """A request with its decision and its plan."""

    model: Model
    decision: Decision
    plan: Plan
    request: UpstreamRequest
    shape: RequestShape
    mirror_session: MirrorSession | None = None
    """The mirroring of the request; None if it is not mirrored."""

    def answer_lines(self, variant: str, failover: Outcome | None) -> bytes:
        """The `x-penumbra-*` header lines of the answer by `variant`."""
        lines = self.model.answer_lines(variant, self.decision.reason)
        return lines + f"x-penumbra-failover: {failover}\r\n".encode() if failover else lines
