"""Frames between a gateway and a comparator of two versions."""

import msgspec
import pytest

from penumbra.router.mirror.frame import LENGTH_BYTES, frame, read_frame
from tests.support.mirrored import mirrored


def elements(**changes: object) -> list[object]:
    """A frame's elements, as they are on the socket."""
    body = frame(mirrored(**changes))[LENGTH_BYTES:]
    found: list[object] = msgspec.msgpack.decode(body)
    return found


def test_a_frame_survives_the_socket() -> None:
    sent = mirrored(trace="00-a-b-01")
    data = frame(sent)
    assert int.from_bytes(data[:LENGTH_BYTES], "big") == len(data) - LENGTH_BYTES
    assert read_frame(data[LENGTH_BYTES:]) == sent


def test_elements_that_a_newer_gateway_adds_at_the_end_are_ignored() -> None:
    body = msgspec.msgpack.encode([*elements(), "added later", {"a": [1]}])
    assert read_frame(body) == mirrored()


@pytest.mark.parametrize("left_out", [1, 2, 3, 4, 5])
def test_a_gateway_of_before_leaves_out_the_last_elements(left_out: int) -> None:
    found = read_frame(msgspec.msgpack.encode(elements()[:-left_out]))
    assert found == mirrored()
    assert found.draw_id == found.request_id


def test_a_request_is_drawn_by_the_gateways_own_id() -> None:
    assert mirrored("chosen-by-a-client", own_id="req-1").draw_id == "req-1"


def test_a_frame_that_lacks_an_element_that_is_needed_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        read_frame(msgspec.msgpack.encode(elements()[:-8]))
