"""Ids of stored responses are read from answers as they pass, whole or streamed."""

from types import SimpleNamespace
from typing import Any

import pytest

from penumbra.router.gateway.response_ids import NotingClient, read_response_id
from penumbra.router.link.messages import Attribution
from penumbra.router.link.response_homes import ResponseHomes
from tests.support.engine_wire import encode, event
from tests.unit.router.dispatch.test_dispatch import RecordingClient

INT8 = Attribution("demo", "int8", "other")
CREATED = event({"type": "response.created", "response": {"tools": [{"id": "t"}], "id": "resp_1"}})


class Noting:
    """A client that notes where responses are made, and the homes that it notes them in."""

    def __init__(self) -> None:
        self.client = RecordingClient()
        self.homes = ResponseHomes()
        dispatch: Any = SimpleNamespace(attempt=SimpleNamespace(name="int8"), slice_name="other")
        routed: Any = SimpleNamespace(
            model=SimpleNamespace(
                attribution=lambda *names: (Attribution("demo", *names[:2]), "acme")
            )
        )
        self.noting = NotingClient(self.client, self.homes, routed, "acme")
        self.noting.dispatch = dispatch


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (encode({"id": "resp_1", "output": []}), "resp_1"),
        (encode({"output": [{"id": "msg_1"}], "id": "r-of-another-server"}), "r-of-another-server"),
        (encode({"response": {"id": "resp_2"}, "type": "response.created"}), "resp_2"),
        (encode({"id": "resp_3", "output": ["x" * 1_000_000]}), "resp_3"),
        (encode({"output": ["x" * 1_000_000], "id": "resp_4"}), None),
        (encode({"id": 7}), None),
        (encode({"id": ""}), None),
        (encode({"response": "x", "id": "resp_5"}), None),
        (b"[DONE]", None),
        (b"[]", None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_the_id_of_a_response_is_read(payload: bytes, expected: str | None) -> None:
    assert read_response_id(payload) == expected


def test_a_whole_response_is_noted_and_passed_on() -> None:
    noting = Noting()
    noting.noting.send_whole(200, [], encode({"id": "resp_1"}))
    assert noting.homes.find("resp_1", "acme") == INT8
    assert noting.client.body == encode({"id": "resp_1"})


def test_an_error_is_not_noted() -> None:
    noting = Noting()
    noting.noting.send_whole(404, [], encode({"id": "resp_1"}))
    assert noting.homes.find("resp_1", "acme") is None


@pytest.mark.parametrize("before", [[], [b": keep-alive\n\n", b": keep-alive\n\n"]])
def test_a_stream_is_noted_by_its_first_event_with_data(before: list[bytes]) -> None:
    noting = Noting()
    noting.noting.send_head(200, [])
    for piece in [*before, CREATED, event({"response": {"id": "resp_2"}})]:
        noting.noting.send_piece(piece)
    noting.noting.finish()
    assert noting.homes.find("resp_1", "acme") == INT8
    assert noting.homes.find("resp_2", "acme") is None
    assert noting.noting.dispatch is None
