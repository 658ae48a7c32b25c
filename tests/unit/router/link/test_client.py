import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.observations import Counts, Pair, Report, Run, RunReport, Signal
from penumbra.router.flags.routing_table import Flag, Snapshot
from penumbra.router.link.backoff import Backoff
from penumbra.router.link.client import ControlLink
from penumbra.router.link.link_url import link_url
from penumbra.router.link.messages import (
    EpochApplied,
    Hello,
    LinkError,
    Refused,
    encode,
    from_control,
    from_gateway,
    push_of,
)
from penumbra.router.link.unreadable_report import UnreadableReport
from tests.support.routing_tables import flags, snapshot

RUN = Run("demo", "int8", "run-1")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8090", "ws://127.0.0.1:8090/gateway/v1/link"),
        ("https://control/", "wss://control/gateway/v1/link"),
        ("ws://control/base", "ws://control/base/gateway/v1/link"),
    ],
)
def test_the_link_is_at_the_control_url(url: str, expected: str) -> None:
    assert link_url(url) == expected


@pytest.mark.parametrize("url", ["127.0.0.1:8090", "ftp://control", ""])
def test_an_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="control_url: found"):
        link_url(url)


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True))
def test_retries_are_jittered_and_bounded(failures: int, jitter: float) -> None:
    backoff = Backoff(first_retry_seconds=0.1, longest_retry_seconds=2.0, jitter=lambda: jitter)
    assert 0.05 <= backoff.retry_seconds(failures) <= 2.0
    assert backoff.retry_seconds(failures) <= backoff.retry_seconds(failures + 1)


@given(flags())
def test_a_table_survives_the_link(flag: Flag) -> None:
    push = from_control(push_of("store", snapshot(flag, epoch=7)))
    assert (push.store, push.table()) == ("store", snapshot(flag, epoch=7))


@pytest.mark.parametrize("message", [Hello("g", 1, "s", 2), EpochApplied(3), Refused(4, "why")])
def test_messages_of_a_gateway_survive_the_link(message: Hello | EpochApplied | Refused) -> None:
    assert from_gateway(encode(message)) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '{"type":"applied"}',
        '{"type":"applied","epoch":"3"}',
        '{"type":"applied","epoch":"3","more":1}',
        '{"type":["nosuch"]}',
        b"\xff",
        '{"type":"feedback","nonce":1,"request_id":"r","tenant":"t","attribution":null,'
        '"metadata":{"a":' + 5_000 * "[" + 5_000 * "]" + "}}",
    ],
)
def test_a_malformed_message_is_refused(text: str | bytes) -> None:
    with pytest.raises(LinkError):
        from_gateway(text)
    with pytest.raises(LinkError):
        from_control(text)


class Receiver:
    """Takes the tables of a link."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.is_broken = False

    def __call__(self, table: Snapshot) -> None:
        if self.is_broken:
            raise RuntimeError("cannot")
        self.epochs.append(table.epoch)


def deliver(link: ControlLink, epoch: int, store: str = "store") -> EpochApplied | Refused:
    return link._in_force.take(from_control(push_of(store, snapshot(epoch=epoch))))


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def link(receiver: Receiver) -> ControlLink:
    return ControlLink("http://control", "token", "g", receiver)


def test_a_newer_epoch_is_put_into_force(link: ControlLink, receiver: Receiver) -> None:
    assert deliver(link, 1) == EpochApplied(1)
    assert deliver(link, 5) == EpochApplied(5)
    assert receiver.epochs == [1, 5]
    assert link.last_epoch == 5


def test_the_same_epoch_again_is_acknowledged_only(link: ControlLink, receiver: Receiver) -> None:
    deliver(link, 2)
    assert deliver(link, 2) == EpochApplied(2)
    assert receiver.epochs == [2]


def test_an_older_epoch_of_the_same_store_is_refused(link: ControlLink, receiver: Receiver) -> None:
    deliver(link, 2)
    answer = deliver(link, 1)
    assert isinstance(answer, Refused)
    assert "older than epoch 2" in answer.detail
    assert receiver.epochs == [2]


def test_another_store_begins_anew(link: ControlLink, receiver: Receiver) -> None:
    deliver(link, 9)
    assert deliver(link, 1, store="other") == EpochApplied(1)
    assert receiver.epochs == [9, 1]


def test_a_table_that_cannot_be_applied_leaves_the_last_one(
    link: ControlLink, receiver: Receiver
) -> None:
    deliver(link, 1)
    receiver.is_broken = True
    assert deliver(link, 2) == Refused(2, "RuntimeError: cannot")
    assert link.last_epoch == 1
    receiver.is_broken = False
    assert deliver(link, 2) == EpochApplied(2)


def test_an_invalid_table_is_refused(link: ControlLink, receiver: Receiver) -> None:
    push = from_control('{"type":"snapshot","store":"s","snapshot":{"epoch":1}}')
    answer = link._in_force.take(push)
    assert isinstance(answer, Refused)
    assert answer.epoch == -1
    assert receiver.epochs == []


@pytest.mark.parametrize(
    "wrong",
    [
        RunReport(RUN, pairs=(Pair("r1", "json", 1, displacement=1.01),)),
        RunReport(RUN, pairs=(Pair("r1", "json", 1, harm=2),)),
        RunReport(RUN, counts=(Counts("json", Signal.FAILURE, -1, 0),)),
    ],
)
def test_an_observation_outside_its_range_is_refused_before_it_is_stored(wrong: RunReport) -> None:
    # Nothing could be made of it, now or later. Its name is read, so that it is refused by name:
    # on a connection that it ended it would come again and again.
    found = from_gateway(encode(Report("c", "life", 1, (wrong,))))
    assert isinstance(found, UnreadableReport)
    assert (found.source, found.process_start_id, found.seq) == ("c", "life", 1)
    assert "Expected" in found.detail
