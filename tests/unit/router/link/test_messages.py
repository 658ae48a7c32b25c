"""Messages between processes of two versions: what is added later must not break a link."""

import json
from collections.abc import Iterator

import pytest

from penumbra.monitoring.answers import AnswerCount
from penumbra.monitoring.observations import Pair, Report, Run, RunReport
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.flags.tenant_keys import KeySettings, TenantLimits
from penumbra.router.link.client import ControlLink
from penumbra.router.link.duties import Duties
from penumbra.router.link.lease import Lease
from penumbra.router.link.messages import (
    Answers,
    Attribution,
    Beat,
    EpochApplied,
    Feedback,
    FeedbackDone,
    Found,
    FromControl,
    FromGateway,
    Hello,
    LeaseGrant,
    LinkError,
    Probe,
    Push,
    Refused,
    Renew,
    Seek,
    Stored,
    UnknownMessage,
    encode,
    from_control,
    from_gateway,
    push_of,
)
from penumbra.router.link.unknown_messages import UnknownMessages
from tests.support.routing_tables import snapshot

INT8 = Attribution("demo", "int8", "facts")
REPORT = Report("g", "life", 1, (RunReport(Run("demo", "int8", "r"), (Pair("q", "s", 1),)),))
FROM_GATEWAY: list[FromGateway] = [
    Hello("g", 1, "s", 2, "machine", ":9"),
    EpochApplied(3),
    Refused(4, "why"),
    Renew(5),
    Answers((AnswerCount("demo", "full", "5xx", 7),)),
    Beat(6),
    REPORT,
    Feedback(7, "req", "acme", INT8),
    Found(8, INT8),
]
FROM_CONTROL: list[FromControl] = [
    LeaseGrant(1, {"demo": 1.0}, 10.0),
    Probe(2),
    Stored("life", 3),
    Seek(4, "req", "acme"),
    FeedbackDone(5, INT8),
]


def with_more(text: str) -> str:
    """The message with a field that was added to every object of it after this version."""

    def add(value: object) -> object:
        if isinstance(value, list):
            return [add(item) for item in value]
        if not isinstance(value, dict):
            return value
        fields = {name: add(item) for name, item in value.items()}
        is_map = "demo" in value or not value  # model -> seconds, and metadata: no objects of ours
        return fields if is_map else {**fields, "added_later": {"a": [1]}}

    return json.dumps(add(json.loads(text)))


def names(message: object) -> str:
    return type(message).__name__


@pytest.mark.parametrize("message", FROM_GATEWAY, ids=names)
def test_fields_that_a_newer_gateway_adds_are_ignored(message: FromGateway) -> None:
    assert from_gateway(with_more(encode(message))) == message


@pytest.mark.parametrize("message", FROM_CONTROL, ids=names)
def test_fields_that_a_newer_control_process_adds_are_ignored(message: FromControl) -> None:
    assert from_control(with_more(encode(message))) == message


def test_a_push_with_an_added_field_carries_its_table() -> None:
    text = push_of("store", snapshot(epoch=7))
    push = from_control(text[:-1] + ',"added_later":1}')
    assert push.table() == snapshot(epoch=7)


def test_a_hello_without_a_version_is_of_the_first_one() -> None:
    # As a gateway of before says it.
    hello = from_gateway('{"type":"hello","gateway":"g","pid":1,"store":"","epoch":0}')
    assert hello == Hello("g", 1, "", 0)
    assert hello.version == 1


def test_a_hello_of_the_first_version_is_one_that_an_older_control_process_takes() -> None:
    said = json.loads(encode(Hello("g", 1, "", 0, "machine", ":9")))
    assert set(said) == {"type", "gateway", "pid", "store", "epoch", "host", "metrics"}


def test_the_version_of_a_newer_peer_is_known() -> None:
    hello = from_gateway(encode(Hello("g", 1, "", 0, version=2)))
    assert hello.version == 2


def test_a_type_that_a_newer_peer_added_is_told_apart_from_a_malformed_message() -> None:
    text = '{"type":"added_later","nonce":{"a":[1]}}'
    assert from_gateway(text) == UnknownMessage("added_later")
    assert from_control(text) == UnknownMessage("added_later")


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"added_later"',
        '{"type":7}',
        '{"kind":"added_later"}',
        '["added_later"]',
        '{"type":"added_later","a":' + 5_000 * "[" + 5_000 * "]" + "}",
    ],
)
def test_a_malformed_message_is_none_of_an_added_type(text: str) -> None:
    for read in (from_gateway, from_control):
        with pytest.raises(LinkError):
            read(text)


def test_a_message_of_the_other_direction_is_refused() -> None:
    with pytest.raises(LinkError):
        from_gateway(encode(Probe(1)))
    with pytest.raises(LinkError):
        from_control(encode(Beat(1)))


def test_a_table_leaves_out_what_is_at_its_default_so_that_an_older_gateway_takes_it() -> None:
    sent = json.loads(push_of("store", Snapshot(epoch=1, models={})))
    assert sent["snapshot"] == {"epoch": 1, "models": {}}
    [sent_model] = json.loads(push_of("store", snapshot(epoch=1)))["snapshot"]["models"].values()
    assert "watches" not in sent_model


def test_an_unknown_type_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    unknown = UnknownMessages("gateway-0")
    for _ in range(3):
        unknown.note(UnknownMessage("added_later"))
    unknown.note(UnknownMessage("another"))
    logged = [(record.message, record.__dict__["message_type"]) for record in caplog.records]
    assert logged == [
        ("link_message_unknown", "added_later"),
        ("link_message_unknown", "another"),
    ]


def test_however_many_types_are_unknown_the_log_is_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    unknown = UnknownMessages("gateway-0")
    for number in range(1000):
        unknown.note(UnknownMessage(f"{number}" * 100))
    assert len(caplog.records) <= 16
    assert all(len(record.__dict__["message_type"]) <= 64 for record in caplog.records)


class Socket:
    """The gateway's end of a connection: gives what control said, keeps what is sent."""

    def __init__(self, *said: str) -> None:
        self._said: Iterator[str] = iter(said)
        self.sent: list[FromGateway | UnknownMessage] = []

    def __aiter__(self) -> "Socket":
        return self

    async def __anext__(self) -> str:
        for text in self._said:
            return text
        raise StopAsyncIteration

    async def send(self, text: str) -> None:
        self.sent.append(from_gateway(text))


async def test_a_gateway_follows_a_newer_control_process(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    tables: list[Snapshot] = []
    lease = Lease()
    question = lease.ask(100.0)
    link = ControlLink("http://control", "token", "g", tables.append, duties=Duties(lease=lease))
    socket = Socket(
        '{"type":"added_later"}',
        push_of("store", snapshot(epoch=1))[:-1] + ',"added_later":1}',
        '{"type":"added_later"}',
        with_more(encode(LeaseGrant(question.nonce, {"demo": 5.0}, 10.0))),
        push_of("store", snapshot(epoch=2)),
    )
    await link._follow(socket)  # type: ignore[arg-type]
    assert socket.sent == [EpochApplied(1), EpochApplied(2)]
    assert [table.epoch for table in tables] == [1, 2]
    assert lease.left_seconds("demo", 100.0) == 5.0
    assert [record.message for record in caplog.records].count("link_message_unknown") == 1


KEYS = (
    KeySettings(tenant="acme", sha256="a" * 64),
    KeySettings(tenant="globex", sha256="b" * 64, limits=TenantLimits(concurrency=4)),
)


@pytest.mark.parametrize("keys", [None, (), KEYS])
def test_keys_travel_with_a_table(keys: tuple[KeySettings, ...] | None) -> None:
    table = snapshot().model_copy(update={"keys": keys})
    push = from_control(push_of("s", table, 2, "d"))
    assert isinstance(push, Push)
    assert push.table() == table


def test_a_gateway_of_before_keys_takes_a_table_that_comes_with_some() -> None:
    table = snapshot().model_copy(update={"keys": KEYS})
    sent = json.loads(push_of("s", table))
    assert sent.pop("keys")
    assert sent == json.loads(push_of("s", snapshot()))


def test_a_comparator_says_nothing_of_keys() -> None:
    assert not {"processes", "needs_keys"} & set(json.loads(encode(Hello("c", 1, "", 0))))
