"""Mirroring of a request that fails, which the request's client must not notice."""

import pytest

from penumbra.monitoring.observations import Run
from penumbra.router.link.observation_outbox import ObservationOutbox
from penumbra.router.metrics import GatewayMetrics
from penumbra.router.mirror.comparator_client import ComparatorClient
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.mirror.session import AnswerTimes, MirrorSessions, RequestFacts
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.upstream.port import UpstreamRequest

RUN = Run("demo", "int8", "run-1")
FACTS = RequestFacts(b"r-1", b"req-1", "demo", "other", epoch=1, prompt_hash=1, root=1, session=0)
REQUEST = UpstreamRequest(b"/v1/chat/completions", b"", b'{"model":"demo","messages":["SECRET"]}')


class KeepingComparatorClient(ComparatorClient):
    """A client of the comparator that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(None)
        self.frames: list[MirrorFrame] = []

    def refusal(self) -> ShedReason | None:
        return None

    def offer(self, mirrored: MirrorFrame) -> ShedReason | None:
        self.frames.append(mirrored)
        return None


class BrokenComparatorClient(ComparatorClient):
    """A client of the comparator that raises."""

    def __init__(self, *, is_broken_at_once: bool) -> None:
        super().__init__(None)
        self._is_broken_at_once = is_broken_at_once

    def refusal(self) -> ShedReason | None:
        if self._is_broken_at_once:
            raise RuntimeError("SECRET")
        return None

    def offer(self, mirrored: MirrorFrame) -> ShedReason | None:
        raise RuntimeError("SECRET")


@pytest.mark.parametrize("is_broken_at_once", [True, False])
def test_a_fault_is_counted_and_costs_the_client_nothing(
    caplog: pytest.LogCaptureFixture, is_broken_at_once: bool
) -> None:
    outbox, metrics = ObservationOutbox("me", "life-1"), GatewayMetrics()
    comparator_client = BrokenComparatorClient(is_broken_at_once=is_broken_at_once)
    sessions = MirrorSessions(comparator_client, outbox, metrics)
    session = sessions.begin((RUN,), "full", REQUEST, FACTS)
    assert (session is None) is is_broken_at_once
    if session is not None:
        session.tap.whole(b"{}")
        sessions.end(session, AnswerTimes("full", 0.0, 0.5, 1.0))
    assert metrics.mirror_sheds.cell("demo", "int8", "fault").value == 1
    report = outbox.next_report()
    assert report is not None
    [run] = report.runs
    assert [(shed.reason, shed.count) for shed in run.sheds] == [("fault", 1)]
    assert "mirroring_failed" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize(("route", "reason"), [("embeddings", "route"), ("chat", "not_tappable")])
def test_a_request_that_cannot_be_compared_is_counted(route: str, reason: str) -> None:
    outbox, metrics = ObservationOutbox("me", "life-1"), GatewayMetrics()
    MirrorSessions(ComparatorClient(None), outbox, metrics).leave_out((RUN,), "other", route)
    assert metrics.mirror_sheds.cell("demo", "int8", reason).value == 1
    report = outbox.next_report()
    assert report is not None
    assert [(shed.slice, shed.reason) for shed in report.runs[0].sheds] == [("other", reason)]


TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"token_ids":[7]}]}\n\n'
ERROR = b'data: {"error":{"message":"out of memory"}}\n\n'


def mirror(*pieces: bytes, variant: str, **changes: object) -> tuple[list[MirrorFrame], list[str]]:
    """Mirrors a stream; returns what was handed over, and why the rest was not."""
    comparator_client, outbox = KeepingComparatorClient(), ObservationOutbox("me", "life-1")
    sessions = MirrorSessions(comparator_client, outbox, GatewayMetrics())
    session = sessions.begin((RUN,), "full", REQUEST, FACTS)
    assert session is not None
    for piece in pieces:
        session.tap.feed(piece)
    for name, value in changes.items():
        setattr(session, name, value)
    sessions.end(session, AnswerTimes(variant, 0.0, 0.5, 1.0))
    report = outbox.next_report()
    return comparator_client.frames, [
        shed.reason for shed in report.runs[0].sheds
    ] if report else []


@pytest.mark.parametrize("variant", ["full", "int8"])
def test_tokens_that_came_before_the_client_left_are_handed_over(variant: str) -> None:
    [frame], sheds = mirror(TOKEN, TOKEN, variant=variant, has_left=True)
    assert (frame.candidates, frame.partial_for, frame.is_partial) == ((), ("int8",), True)
    assert (frame.answer, sheds) == (TOKEN + TOKEN, [])


@pytest.mark.parametrize("piece", [b'{"choices":[{"token_ids":[7]}]}', b": wait\n\n", b""])
def test_a_client_that_left_before_a_token_is_counted(piece: bytes) -> None:
    assert mirror(piece, variant="full", has_left=True) == ([], ["client_gone"])


def test_a_stream_in_which_the_baseline_failed_is_handed_over_as_failed() -> None:
    [frame], sheds = mirror(TOKEN, ERROR, variant="full")
    assert (frame.partial_for, frame.problem, frame.answer) == (("int8",), "error_event", b"")
    assert (frame.is_partial, sheds) == (False, [])


def test_a_stream_in_which_the_candidate_failed_is_a_failure_and_no_pair() -> None:
    assert mirror(TOKEN, ERROR, variant="int8") == ([], ["error"])


@pytest.mark.parametrize(("variant", "count"), [("full", 1), ("int8", 0)])
def test_a_stream_that_broke_off_counts_as_the_baselines_failure_alone(
    variant: str, count: int
) -> None:
    comparator_client, outbox = KeepingComparatorClient(), ObservationOutbox("me", "life-1")
    sessions = MirrorSessions(comparator_client, outbox, GatewayMetrics())
    session = sessions.begin((RUN,), "full", REQUEST, FACTS)
    assert session is not None
    session.tap.feed(TOKEN)
    session.tap.lose(ShedReason.BROKEN_OFF)
    session.problem = "died"
    sessions.end(session, AnswerTimes(variant, 0.0, 0.5, 1.0))
    assert [frame.problem for frame in comparator_client.frames] == ["died"] * count
