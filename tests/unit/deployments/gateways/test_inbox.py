"""Messages of gateways and comparators, and the answers to them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from penumbra.deployments.errors import AlreadyJudged, ReportRefused, StoreUnavailable
from penumbra.deployments.gateways.feedback_relay import refuse_feedback
from penumbra.deployments.gateways.inbox import LinkInbox
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.gateways.refused_reports import RefusedReports
from penumbra.deployments.history.user_feedback import UserFeedback
from penumbra.monitoring.observations import Counts, Pair, Report, Run, RunReport, Signal
from penumbra.router.flags.routing_table import Snapshot, Watch
from penumbra.router.link.messages import (
    Attribution,
    Beat,
    Feedback,
    FeedbackDone,
    Found,
    FromGateway,
    LeaseGrant,
    LinkError,
    Probe,
    Renew,
    Seek,
    Stored,
    encode,
)
from tests.support.control_plane import FakeGateway, refuse_report, turns
from tests.support.routing_tables import model

HOST = "machine-1"
WATCHED = model().model_copy(
    update={"watches": (Watch(candidate="int8", run="run-1", mirror=1.0),)}
)
TABLE = Snapshot(epoch=1, models={"demo": model(), "mirrored": WATCHED})
INT8 = Attribution("demo", "int8", "other")


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Plane:
    """Both publishers, with a clock of the test's."""

    def __init__(self, fence_seconds: float | None = None) -> None:
        self.clock = Clock()
        self.liveness = GuardLiveness(10.0, fence_seconds)
        self.take_report: Callable[[Report], Awaitable[None]] = refuse_report
        self.take_feedback: Callable[[UserFeedback], Awaitable[None]] = refuse_feedback
        self.comparators = Publisher("store", self.clock)
        self.gateways = Publisher("store", self.clock, follower=self.comparators)
        self.inbox = LinkInbox(
            self.liveness,
            self.clock,
            lambda report: self.take_report(report),
            take_feedback=lambda judgement: self.take_feedback(judgement),
            newest_table=lambda: self.gateways.snapshot,
        )
        self.comparator_inbox = LinkInbox(
            self.liveness,
            self.clock,
            lambda report: self.take_report(report),
            is_for_comparators=True,
        )
        self.attending: dict[str, asyncio.Task[None]] = {}
        self.gateways.publish(TABLE, 0.0)

    async def connect(self, name: str, *, is_comparator: bool = False) -> FakeGateway:
        gateway = FakeGateway(name, host=HOST)
        publisher, inbox = (
            (self.comparators, self.comparator_inbox)
            if is_comparator
            else (self.gateways, self.inbox)
        )
        self.attending[name] = asyncio.create_task(publisher.attend(gateway, inbox))
        await gateway.reach(1)
        return gateway


@asynccontextmanager
async def running(fence_seconds: float | None = None) -> AsyncIterator[Plane]:
    plane = Plane(fence_seconds)
    try:
        yield plane
    finally:
        for task in plane.attending.values():
            task.cancel()
        await asyncio.gather(*plane.attending.values(), return_exceptions=True)


def say(gateway: FakeGateway, message: FromGateway) -> None:
    gateway.say(encode(message))


def report(seq: int) -> Report:
    return Report("gateway-0", "life-1", seq, ())


async def test_a_comparator_gets_every_table_and_no_delivery_waits_for_it() -> None:
    async with running() as plane:
        comparator = await plane.connect("comparator-0", is_comparator=True)
        delivery = plane.gateways.publish(TABLE.model_copy(update={"epoch": 2}), 0.0)
        await comparator.reach(2)
        assert (await delivery.wait(1.0)).connected == 0


async def test_a_renewal_is_answered_with_what_is_left_of_each_model() -> None:
    async with running() as plane:
        gateway = await plane.connect("gateway-0")
        plane.clock.seconds = 100.0
        plane.liveness.note_tick(97.0)
        say(gateway, Renew(7))
        assert await gateway.hear(LeaseGrant) == LeaseGrant(7, {"demo": 7.0, "mirrored": 0.0}, 10.0)


async def test_a_question_stays_without_an_answer_while_this_process_may_not_grant() -> None:
    async with running(fence_seconds=4.0) as plane:
        gateway = await plane.connect("gateway-0")
        plane.liveness.begin_term(0.0, 0.0)
        plane.liveness.note_tick(0.0)
        say(gateway, Renew(1))  # the store does not know yet that leases are granted
        await turns()
        assert plane.liveness.is_asked
        plane.liveness.allow_grants()
        plane.clock.seconds = 4.0  # the last renewal is too old
        say(gateway, Renew(2))
        await turns()
        plane.clock.seconds = 3.0
        say(gateway, Renew(3))
        assert (await gateway.hear(LeaseGrant)).nonce == 3
        plane.liveness.end_term()
        plane.liveness.note_tick(3.0)
        say(gateway, Renew(4))
        await turns()
        assert not [message for message in gateway.heard if isinstance(message, LeaseGrant)]


async def test_the_first_question_of_a_term_is_answered_after_the_next_renewal() -> None:
    async with running(fence_seconds=4.0) as plane:
        gateway = await plane.connect("gateway-0")
        asked: list[int] = []
        plane.liveness.on_first_question = lambda: asked.append(1)
        plane.liveness.begin_term(0.0, 0.0)
        say(gateway, Renew(1))
        say(gateway, Renew(2))
        await turns()
        assert asked == [1]
        plane.liveness.allow_grants()
        plane.liveness.note_tick(0.0)
        plane.inbox.answer_waiting()
        assert (await gateway.hear(LeaseGrant)).nonce == 2


async def test_a_new_leader_ends_no_lease_before_comparators_can_have_found_it() -> None:
    async with running(fence_seconds=4.0) as plane:
        gateway = await plane.connect("gateway-0")
        plane.liveness.begin_term(0.0, 8.0)
        plane.liveness.allow_grants()
        plane.liveness.note_tick(4.9)
        plane.clock.seconds = 4.9
        say(gateway, Renew(1))
        await turns()
        plane.clock.seconds = 5.0
        say(gateway, Renew(2))
        grant = await gateway.hear(LeaseGrant)
        assert (grant.nonce, grant.seconds["mirrored"]) == (2, 0.0)


async def test_a_comparators_answer_counts_from_when_it_was_asked() -> None:
    async with running() as plane:
        gateway = await plane.connect("gateway-0")
        plane.clock.seconds = 100.0
        comparator = await plane.connect("comparator-0", is_comparator=True)
        probe = await comparator.hear(Probe)
        plane.clock.seconds = 104.0
        plane.liveness.note_tick(104.0)
        say(comparator, Beat(probe.nonce))
        # Said in order: once this is stored, the beat has been heard.
        await stored_by(plane, comparator)
        say(gateway, Renew(1))
        assert (await gateway.hear(LeaseGrant)).seconds == {"demo": 10.0, "mirrored": 6.0}


async def test_a_beat_that_was_not_asked_for_proves_nothing() -> None:
    async with running() as plane:
        comparator = await plane.connect("comparator-0", is_comparator=True)
        plane.liveness.note_tick(0.0)
        say(comparator, Beat(999))
        await stored_by(plane, comparator)
        assert plane.liveness.grant(TABLE, HOST, 0.0)["mirrored"] == 0.0


async def stored_by(plane: Plane, comparator: FakeGateway) -> None:
    async def take(taken: Report) -> None:
        del taken

    plane.take_report = take
    say(comparator, report(1))
    await comparator.hear(Stored)


async def refuse_for_good(taken: Report) -> None:
    if taken.seq == 1:
        raise ReportRefused("seq: found 1, wanted another", param="seq")


async def test_a_report_that_cannot_be_counted_is_dropped_and_ends_no_lease() -> None:
    async with running() as plane:
        gateway = await plane.connect("gateway-0")
        plane.take_report = refuse_for_good
        say(gateway, report(1))
        assert (await gateway.hear(Stored)).seq == 1
        say(gateway, report(2))
        assert (await gateway.hear(Stored)).seq == 2
        plane.clock.seconds = 100.0
        plane.liveness.note_tick(100.0)
        say(gateway, Renew(1))
        assert (await gateway.hear(LeaseGrant)).seconds["demo"] == 10.0


async def test_a_report_with_an_impossible_value_is_dropped_and_the_link_stays() -> None:
    async with running() as plane:
        gateway = await plane.connect("gateway-0")
        run = RunReport(Run("demo", "int8", "run-1"), counts=(Counts("a", Signal.FAILURE, 7, 0),))
        text = encode(Report("gateway-0", "life-1", 1, (run,)))
        gateway.say(text.replace('"zeros":7', '"zeros":-7'))
        assert (await gateway.hear(Stored)).seq == 1
        plane.take_report = refuse_for_good
        say(gateway, report(2))
        assert (await gateway.hear(Stored)).seq == 2


def test_refused_reports_are_counted_and_logged_once_a_minute_and_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    refused = RefusedReports(clock)
    for seconds in (0.0, 1.0, 59.0, 60.0):
        clock.seconds = seconds
        refused.note("gateway-0", 2**70, "seq: too large")
    refused.note("comparator-0", 1, "at: found -1")
    assert refused.count == 5
    logged = [(r.gateway, r.seq, r.refused_before) for r in caplog.records]  # type: ignore[attr-defined]
    assert logged == [("gateway-0", None, 0), ("gateway-0", None, 2), ("comparator-0", 1, 0)]


@pytest.mark.parametrize("is_comparator", [True, False])
async def test_a_process_that_sends_a_message_of_the_other_kind_is_cut_off(
    is_comparator: bool,
) -> None:
    async with running() as plane:
        process = await plane.connect("process", is_comparator=is_comparator)
        say(process, Renew(1) if is_comparator else Beat(1))
        with pytest.raises(LinkError):
            await plane.attending["process"]


async def test_a_report_is_acknowledged_only_when_it_is_durable() -> None:
    async with running() as plane:
        is_durable = asyncio.Event()
        taken: list[int] = []

        async def take(report: Report) -> None:
            taken.append(report.seq)
            await is_durable.wait()

        plane.take_report = take
        plane.liveness.note_tick(0.0)
        gateway = await plane.connect("gateway-0")
        say(gateway, report(1))
        say(gateway, Renew(1))
        assert (await gateway.hear(LeaseGrant)).seconds["demo"] == 10.0
        # While it is on its way to the disk the link is heard, and the lease runs down.
        plane.clock.seconds = 4.0
        plane.liveness.note_tick(4.0)
        say(gateway, Renew(2))
        assert (await gateway.hear(LeaseGrant)).seconds["demo"] == 6.0
        assert not [message for message in gateway.heard if isinstance(message, Stored)]
        is_durable.set()
        assert await gateway.hear(Stored) == Stored("life-1", 1)
        assert taken == [1]


async def test_a_report_that_cannot_be_stored_is_tried_again_and_meanwhile_leases_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penumbra.deployments.gateways.inbox._RETRY_SECONDS", 0.0)
    async with running() as plane:
        tries: list[float] = []

        async def take(report: Report) -> None:
            tries.append(plane.liveness.grant(TABLE, HOST, 20.0)["demo"])
            if len(tries) < 3:
                raise StoreUnavailable("full")

        plane.take_report = take
        gateway = await plane.connect("gateway-0")
        plane.clock.seconds = 10.0
        plane.liveness.note_tick(20.0)
        say(gateway, report(1))
        assert await gateway.hear(Stored) == Stored("life-1", 1)
        assert tries == [0.0, 0.0, 0.0]
        assert plane.liveness.grant(TABLE, HOST, 20.0)["demo"] == 10.0


async def test_a_store_that_is_away_is_one_line_a_minute_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("penumbra.deployments.gateways.inbox._RETRY_SECONDS", 0.0)
    tries = 0

    async def take(report: Report) -> None:
        nonlocal tries
        tries += 1
        if tries == 10:
            plane.clock.seconds = 60.0
        if tries < 20:
            raise StoreUnavailable("the server is away")

    async with running() as plane:
        plane.take_report = take
        gateway = await plane.connect("gateway-0")
        say(gateway, report(1))
        await gateway.hear(Stored)
    lines = [record for record in caplog.records if record.message == "report_not_stored"]
    fields = [(vars(line)["code"], vars(line)["repeated"]) for line in lines]
    assert fields == [("store_unavailable", 0), ("store_unavailable", 8)]
    assert [line.exc_info for line in lines] == [None, None]


async def test_reports_are_taken_in_order_and_a_flood_is_cut_off() -> None:
    async with running() as plane:
        taken: list[int] = []
        may_go_on = asyncio.Event()

        async def take(report: Report) -> None:
            await may_go_on.wait()
            taken.append(report.seq)

        plane.take_report = take
        polite, flooding = await plane.connect("polite"), await plane.connect("flooding")
        for seq in (1, 2, 3):
            say(polite, report(seq))
        for seq in range(20):
            say(flooding, report(seq))
        with pytest.raises(LinkError):
            await plane.attending["flooding"]
        may_go_on.set()
        while await polite.hear(Stored) != Stored("life-1", 3):
            pass
        assert [seq for seq in taken if seq in (1, 2, 3)] == [1, 2, 3]


async def test_the_end_of_a_connection_does_not_break_off_what_is_being_stored() -> None:
    async with running() as plane:
        began, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def take(report: Report) -> None:
            began.set()
            await may_end.wait()
            ended.set()

        plane.take_report = take
        gateway = await plane.connect("gateway-0")
        say(gateway, report(1))
        await began.wait()
        gateway.leave()
        await plane.attending["gateway-0"]
        may_end.set()
        async with asyncio.timeout(30):
            await ended.wait()


def feedback(nonce: int, attribution: Attribution | None, **fields: object) -> Feedback:
    return Feedback(nonce, "req-1", "acme", attribution, thumb=False, **fields)  # type: ignore[arg-type]


@asynccontextmanager
async def judged(
    keep: Callable[[UserFeedback], Awaitable[None]],
) -> AsyncIterator[tuple[Plane, list[FakeGateway]]]:
    async with running() as plane:
        plane.take_feedback = keep
        yield plane, [await plane.connect(f"gateway-{number}") for number in range(3)]


async def test_a_judgement_is_confirmed_when_it_is_durable() -> None:
    stored: list[UserFeedback] = []

    async def keep(judgement: UserFeedback) -> None:
        stored.append(judgement)

    async with judged(keep) as (_, [gateway, *_]):
        say(gateway, feedback(5, INT8, metadata={"why": "wrong"}))
        assert await gateway.hear(FeedbackDone) == FeedbackDone(5, INT8)
    [judgement] = stored
    assert (judgement.request_id, judgement.tenant) == ("req-1", "acme")
    assert (judgement.model, judgement.variant, judgement.slice) == ("demo", "int8", "other")
    assert judgement.metadata == {"why": "wrong"}


@pytest.mark.parametrize(
    ("thumb", "score", "is_escalated", "is_negative"),
    [
        (True, None, False, False),
        (False, None, False, True),
        (None, 0.5, False, False),
        (None, 0.49, False, True),
        (True, 1.0, True, True),
        (None, None, False, False),
    ],
)
def test_negative_feedback_is_a_thumb_down_a_low_score_or_an_escalation(
    thumb: bool | None, score: float | None, is_escalated: bool, is_negative: bool
) -> None:
    judgement = UserFeedback("r", "t", "demo", "int8", "other", thumb, score, is_escalated, {})
    assert judgement.is_negative is is_negative


async def test_the_gateway_that_served_the_request_is_found() -> None:
    stored: list[UserFeedback] = []

    async def keep(judgement: UserFeedback) -> None:
        stored.append(judgement)

    async with judged(keep) as (_, [asking, other, server]):
        say(asking, feedback(5, None))
        for gateway, attribution in ((other, None), (server, INT8)):
            seek = await gateway.hear(Seek)
            assert (seek.request_id, seek.tenant) == ("req-1", "acme")
            say(gateway, Found(seek.nonce, attribution))
        assert await asking.hear(FeedbackDone) == FeedbackDone(5, INT8)
    assert stored[0].variant == "int8"


async def test_a_request_that_no_gateway_remembers_is_not_found() -> None:
    async def keep(judgement: UserFeedback) -> None:
        raise AssertionError(judgement)

    async with judged(keep) as (_, [asking, other, leaving]):
        say(asking, feedback(5, None))
        say(other, Found((await other.hear(Seek)).nonce, None))
        await leaving.hear(Seek)
        leaving.leave()
        assert await asking.hear(FeedbackDone) == FeedbackDone(5, None)


async def test_a_gateway_that_does_not_answer_makes_control_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penumbra.deployments.gateways.feedback_relay.SEEK_SECONDS", 0.01)

    async def keep(judgement: UserFeedback) -> None:
        raise AssertionError(judgement)

    async with judged(keep) as (_, [asking, *_]):
        say(asking, feedback(5, None))
        assert await asking.hear(FeedbackDone) == FeedbackDone(5, None, "control_unavailable")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AlreadyJudged("another judgement"), "feedback_exists"),
        (StoreUnavailable("full"), "control_unavailable"),
        (RuntimeError("a bug"), "control_unavailable"),
    ],
)
async def test_a_judgement_that_cannot_be_stored_is_answered_with_an_error(
    error: Exception, code: str
) -> None:
    async def keep(judgement: UserFeedback) -> None:
        raise error

    async with judged(keep) as (_, [gateway, *_]):
        say(gateway, feedback(5, INT8))
        assert (await gateway.hear(FeedbackDone)).error == code


async def test_a_link_that_ends_leaves_nothing_behind() -> None:
    async with running() as plane:
        gateway = await plane.connect("gateway-0")
        plane.clock.seconds = 0.0
        plane.liveness.note_tick(9.0)
        say(gateway, report(1))  # never stored
        with suppress(LinkError):
            gateway.leave()
            await plane.attending["gateway-0"]
        assert plane.liveness.grant(TABLE, HOST, 9.0)["demo"] == 10.0


PAIRS = RunReport(Run("demo", "int8", "run-1"), pairs=(Pair("r", "facts", 1),))
FAILURES = RunReport(Run("demo", "int8", "run-1"), counts=(Counts("facts", Signal.FAILURE, 0, 9),))


@pytest.mark.parametrize(
    ("is_comparator", "foreign", "own"), [(False, PAIRS, FAILURES), (True, FAILURES, PAIRS)]
)
async def test_a_report_of_the_other_kind_is_refused_and_the_link_stays(
    caplog: pytest.LogCaptureFixture, is_comparator: bool, foreign: RunReport, own: RunReport
) -> None:
    taken: list[Report] = []

    async def take(report: Report) -> None:
        taken.append(report)

    async with running() as plane:
        plane.take_report = take
        process = await plane.connect("process", is_comparator=is_comparator)
        say(process, Report("process", "life-1", 1, (own, foreign)))
        assert (await process.hear(Stored)).seq == 1
        say(process, Report("process", "life-1", 2, (own,)))
        assert (await process.hear(Stored)).seq == 2
        inbox = plane.comparator_inbox if is_comparator else plane.inbox
        assert inbox.refused.count == 1
    assert [each.seq for each in taken] == [2]
    refusals = [each for each in caplog.records if each.getMessage() == "report_refused"]
    assert [each.seq for each in refusals] == [1]  # type: ignore[attr-defined]


async def test_a_judgement_from_a_comparator_is_refused_and_the_link_stays() -> None:
    async with running() as plane:
        comparator = await plane.connect("comparator-0", is_comparator=True)
        say(comparator, Feedback(7, "r-1", "acme", INT8, thumb=True))
        assert (await comparator.hear(FeedbackDone)).error == "control_unavailable"
        assert plane.comparator_inbox.refused.count == 1
