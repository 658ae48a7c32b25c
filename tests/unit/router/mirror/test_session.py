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
