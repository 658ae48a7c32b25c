"""One gateway process: the routing table in force, the upstreams, and the services of a request.

`apply` swaps a new epoch in with one assignment. A request reads the table once and keeps it, so a
change never splits one request's decision. Reading order: Gateway.route, Gateway.dispatch, then
`penumbra.router.gateway.compiled_table`.
"""

import asyncio
import itertools
import logging
import math
import secrets
from collections.abc import Callable

from penumbra.monitoring.tracing.tracer import Tracer
from penumbra.monitoring.vocabulary import role_of
from penumbra.router.dispatch.attempt import Attempt, Client
from penumbra.router.dispatch.attribution import Arbiter
from penumbra.router.dispatch.build_record import BuildRecord
from penumbra.router.dispatch.dispatch import Dispatch
from penumbra.router.dispatch.gates import TrafficGates, move
from penumbra.router.dispatch.kept_bytes import KeptBytes
from penumbra.router.dispatch.local_guard import Clocks, LocalGuard
from penumbra.router.dispatch.services import DispatchServices
from penumbra.router.dispatch.timed import Timed
from penumbra.router.emergency_kills import EmergencyKills
from penumbra.router.errors import BadRequest, ModelNotFound
from penumbra.router.flags.evaluate import CLIENT_ERRORS, compile_model, evaluate
from penumbra.router.flags.routing_table import Snapshot, Variant
from penumbra.router.gateway.api_keys import Caller
from penumbra.router.gateway.body_peek import BodyPeek
from penumbra.router.gateway.build_pools import BuildPools, close_all, http_pool
from penumbra.router.gateway.compiled_table import Model, Routed
from penumbra.router.gateway.cross_origin import AllowedOrigins
from penumbra.router.gateway.headers import upstream_headers
from penumbra.router.gateway.incoming_request import IncomingRequest
from penumbra.router.gateway.keys_in_force import KeysInForce
from penumbra.router.gateway.reading_queue import ReadingQueue
from penumbra.router.gateway.recent_answers import RecentAnswers
from penumbra.router.gateway.request_context import build_context, build_facts, refused_decision
from penumbra.router.gateway.request_shape import shape_of
from penumbra.router.gateway.request_trace import RequestTrace
from penumbra.router.link.feedback import FeedbackSubmitter
from penumbra.router.link.lease import Lease
from penumbra.router.link.observation_outbox import ObservationOutbox
from penumbra.router.link.served import Served
from penumbra.router.metrics import GatewayMetrics
from penumbra.router.mirror.comparator_client import ComparatorClient
from penumbra.router.mirror.session import MirrorSessions
from penumbra.router.settings import GatewaySettings
from penumbra.router.upstream.batched_writes import BatchedWrites
from penumbra.router.upstream.port import Upstream, UpstreamRequest

log = logging.getLogger(__name__)

_LINK_PATIENCE_SECONDS = 5.0
_SHOWN_CHARS = 200
"""Characters of an unknown model's name that its error repeats."""
_STALL_SECONDS = 0.5
SWEEP_SECONDS = 0.1
"""Interval between two looks at the deadlines: a limit is exact to within this."""


class Gateway:
    """The state of one gateway process.

    Args:
        settings: Settings of the process.
        now: Monotonic clock, seconds.
        make_upstream: (model, variant) -> Upstream; `HttpUpstream` by default.
        tracer: Tracer of sampled requests; None traces none.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        now: Callable[[], float],
        make_upstream: Callable[[str, Variant], Upstream] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.now = now
        self.tracer = tracer
        self.keys = KeysInForce(settings)
        self.emergency = EmergencyKills(settings.kills_file)
        origins = settings.allowed_origins
        self.origins = AllowedOrigins(origins) if origins else None
        self.metrics = GatewayMetrics()
        self.recent_answers = RecentAnswers(self.metrics.answers, now)
        self.timed: set[Timed] = set()
        self.writes = BatchedWrites()
        self.reading = ReadingQueue()
        self.lease = Lease(is_needed=settings.control_url is not None)
        self.observations = ObservationOutbox(settings.gateway_id, secrets.token_hex(8))
        # A candidate that trips is out of service at once: the same table again, without it.
        self.local_guard = LocalGuard(
            self.observations, Clocks(now), lambda: self.apply(self.snapshot)
        )
        # Without a control process there is no place to store feedback.
        self.served = Served() if settings.control_url is not None else None
        self.feedback = FeedbackSubmitter(self.served or Served())
        self.mirroring = MirrorSessions(
            ComparatorClient(settings.shadow_socket), self.observations, self.metrics
        )
        self.is_draining = False
        self._patient_until = now() + _LINK_PATIENCE_SECONDS if settings.control_url else now()
        self._pools = BuildPools(
            make_upstream
            or (lambda model, variant: http_pool(model, variant, self.limits, self.writes))
        )
        self._kept_bytes = KeptBytes()
        self._arbiters: dict[str, Arbiter] = {}
        self._records: dict[tuple[str, Variant], BuildRecord] = {}
        self._gates = TrafficGates(
            lambda model, variant: self.lease.is_guarding(model, variant, self.now())
        )
        self._models: dict[str, Model] = {}
        self._id_prefix = secrets.token_hex(8).encode()
        self._id_counter = itertools.count()
        self.apply(settings.snapshot)

    @property
    def is_ready(self) -> bool:
        """Whether requests should come here.

        A new process waits a moment for the flags in force from the control process. Requests that
        come before are answered by the baseline all the same.
        """
        if self.is_draining or not self.snapshot.models:
            return False
        return self.snapshot.epoch > 0 or self.now() >= self._patient_until

    @property
    def builds(self) -> dict[str, dict[str, Upstream]]:
        """Model -> variant -> upstream."""
        return self._pools.of(self.snapshot)

    @property
    def lease_seconds(self) -> dict[str, float]:
        """Model -> seconds for which its candidates may get live traffic; empty if unguarded."""
        now, models = self.now(), self._models if self.lease.is_needed else ()
        return {name: self.lease.left_seconds(name, now) for name in models}

    def apply(self, snapshot: Snapshot) -> None:
        """Put a routing table into force.

        Raises:
            ValueError: A variant has no usable address; the last table stays in force.
        """
        # First of all: a table that cannot be taken must not keep a revoked key in force.
        self.keys.take(snapshot.keys)
        upstreams = self._pools.prepare(snapshot)
        records = {key: self._records.get(key) or BuildRecord() for key in upstreams}
        models: dict[str, Model] = {}
        self.local_guard.apply(snapshot)
        for name, pushed in snapshot.models.items():
            model = self.local_guard.block_tripped(name, self.emergency.over(name, pushed))
            attempts: dict[str, Attempt] = {}
            for variant_name, variant in model.variants.items():
                upstream = upstreams[name, variant]
                role = role_of(variant_name, model.baseline)
                cells = self.metrics.variant(name, variant_name, role)
                watch = self.local_guard.watch(name, model, variant_name)
                gate = self._gates.of(name, variant_name)
                record = records[name, variant]
                attempts[variant_name] = Attempt(variant_name, upstream, cells, watch, gate, record)
            services = self._services_of(name, attempts[model.baseline].upstream)
            compiled = compile_model(name, model)
            models[name] = Model(name, snapshot.epoch, compiled, model, attempts, services)
        self._records = records
        self.snapshot, self._models = snapshot, models
        self.emergency.end_with(snapshot)  # not sooner: a table may be refused
        retired = self._pools.replace(upstreams)
        leaving = self._gates.apply({name: model.snapshot for name, model in models.items()})
        if leaving:
            move((item for item in self.timed if isinstance(item, Dispatch)), leaving)
        close_all(retired)
        log.info("snapshot_applied", extra={"epoch": snapshot.epoch})

    def _services_of(self, model: str, baseline: Upstream) -> DispatchServices:
        arbiter = self._arbiters.get(model)
        if arbiter is None:
            arbiter = self._arbiters[model] = Arbiter(self.now)
        arbiter.appoint(baseline)
        return DispatchServices(self.limits, self.now, arbiter, self._kept_bytes)

    def next_request_id(self) -> bytes:
        """Make a request id that no other process makes."""
        return b"req-%b-%x" % (self._id_prefix, next(self._id_counter))

    def _model_of(self, peek: BodyPeek) -> Model:
        if peek.model is None and len(self._models) == 1:  # it may be left out where there is one
            (peek.model,) = self._models
        if peek.model is None:
            raise BadRequest("`model` is nothing, wanted the name of a model", param="model")
        model = self._models.get(peek.model)
        if model is None:
            known = ", ".join(sorted(self._models)) or "none"
            name = peek.model[:_SHOWN_CHARS]
            raise ModelNotFound(
                f"the model {name!r} is not served here; known: {known}", param="model"
            )
        return model

    def route(
        self,
        request: IncomingRequest,
        peek: BodyPeek,
        caller: Caller,
        trace: RequestTrace | None,
    ) -> Routed:
        """Decide one request.

        Args:
            request: The request.
            peek: What was read of its body.
            caller: The key that it came with.
            trace: Its trace, if it is sampled.

        Raises:
            GatewayError: The request cannot be served; the error is for the client.
        """
        model = self._models.get(peek.model) or self._model_of(peek)
        is_lease_fresh = self.lease.is_fresh(peek.model, self.now())
        homes = self.feedback.homes
        context = build_context(request, caller, peek, model, homes, is_lease_fresh=is_lease_fresh)
        context.unguarded = self.lease.without(peek.model)
        decision = evaluate(model.compiled, context)
        if decision.error_code in CLIENT_ERRORS:
            raise refused_decision(decision, context, model)
        model.attempts[decision.variant].cells.count_decision(decision.reason)
        plan = model.plan(decision, context.slice, is_lease_fresh=is_lease_fresh)
        headers = upstream_headers(request.lines, request.headers, request.request_id)
        sent = UpstreamRequest(request.path, headers, request.body)
        routed = Routed(model, decision, plan, sent, shape_of(request.path, peek))
        if model.mirror is not None:
            outside = model.compiled.outside(context)
            runs = model.mirror.chosen(request.own_id, context.slice, decision.variant, outside)
            if runs and not context.is_comparable:
                self.mirroring.leave_out(runs, context.slice, context.features.route)
            elif runs:
                facts = build_facts(request, caller, peek, routed, trace)
                routed.mirror_session = self.mirroring.begin(
                    runs,
                    model.mirror.baseline,
                    sent,
                    facts,
                    is_decode_wanted=model.mirror.wants_decode(runs, request.own_id),
                )
        return routed

    def dispatch(self, routed: Routed, client: Client, trace: RequestTrace | None) -> Dispatch:
        """Make the dispatch of a decided request and watch its deadline; the caller starts it."""
        attempts = trace.route(routed) if trace is not None else routed.model.attempts
        dispatch = Dispatch(
            routed.plan, attempts, routed.request, client, routed.shape, routed.model.services
        )
        if routed.mirror_session is not None:
            dispatch.tap(routed.mirror_session.tap)
        self.timed.add(dispatch)
        self.writes.in_flight += 1
        return dispatch

    async def sweep(self) -> None:
        """Expire all that is over its deadline, every `SWEEP_SECONDS`, until cancelled.

        A process that was stopped or starved holds that against no build and no client: their data
        may wait in its sockets.
        """
        last = self.now()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self.now()
            stood_still = now - last - SWEEP_SECONDS
            last = now
            if stood_still > _STALL_SECONDS:
                log.warning("gateway_stood_still", extra={"seconds": stood_still})
                for item in self.timed:
                    item.forgive(stood_still)
            for item in [item for item in self.timed if item.deadline <= now]:
                try:
                    item.expire(now)
                except Exception:
                    item.deadline = math.inf  # it would fail again at each look
                    log.exception("expire_failed")

    def drain(self) -> None:
        """Report from now on that no new requests should come here."""
        self.is_draining = True

    def close(self) -> None:
        """Close the pooled connections of all upstreams."""
        self._pools.close()
