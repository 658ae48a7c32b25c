"""The client of the comparator's socket, over a transport in memory."""

import asyncio
from typing import Any

import pytest

from penumbra.router.mirror.comparator_client import ComparatorClient
from penumbra.router.mirror.frame import LENGTH_BYTES, MirrorFrame, read_frame


class MemoryTransport(asyncio.WriteTransport):
    """Keeps what is written; a comparator that hangs leaves it in the buffer."""

    def __init__(self, *, is_hanging: bool = False) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self._is_hanging = is_hanging

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.writes)) if self._is_hanging else 0

    def is_closing(self) -> bool:
        return False

    def frames(self) -> list[MirrorFrame]:
        data, found = b"".join(self.writes), []
        while data:
            end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "big")
            found.append(read_frame(data[LENGTH_BYTES:end]))
            data = data[end:]
        return found


def mirrored(number: int = 0, answer: bytes = b"{}") -> MirrorFrame:
    return MirrorFrame(
        request_id=f"r-{number}",
        model="demo",
        variant="full",
        candidates=("int8",),
        slice="other",
        epoch=1,
        path="/v1/chat/completions",
        prompt_hash=2**64 - 1,
        session=0,
        body=b"{}",
        is_stream=False,
        answer=answer,
        answered_at=1.0,
        first_byte_seconds=0.1,
        total_seconds=0.2,
    )


def connected(transport: MemoryTransport, limit: int = 1_000) -> ComparatorClient:
    comparator_client = ComparatorClient(None, limit)
    comparator_client.connection_made(transport)
    return comparator_client


async def _written(comparator_client: ComparatorClient) -> None:
    async with asyncio.timeout(30):
        while comparator_client._waiting:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)


async def test_nothing_is_encoded_or_written_while_the_request_is_under_way() -> None:
    transport = MemoryTransport()
    comparator_client = connected(transport)
    assert comparator_client.offer(mirrored()) is None
    await asyncio.sleep(0)
    assert transport.writes == []
    assert comparator_client.buffered_bytes == 4
    await _written(comparator_client)
    assert transport.frames() == [mirrored()]


async def test_what_comes_within_a_moment_is_one_write() -> None:
    transport = MemoryTransport()
    comparator_client = connected(transport)
    for number in range(50):
        comparator_client.offer(mirrored(number))
    await _written(comparator_client)
    assert len(transport.writes) == 1
    assert transport.frames() == [mirrored(number) for number in range(50)]


async def test_large_ones_are_encoded_over_several_turns() -> None:
    transport = MemoryTransport()
    comparator_client = connected(transport, 100_000_000)
    for number in range(8):
        comparator_client.offer(mirrored(number, b"x" * 600_000))
    await _written(comparator_client)
    assert len(transport.writes) == 4
    assert [each.request_id for each in transport.frames()] == [f"r-{n}" for n in range(8)]


async def test_a_full_buffer_sheds_whatever_the_size_of_what_comes() -> None:
    transport = MemoryTransport(is_hanging=True)
    comparator_client = connected(transport, limit=1_000)
    assert comparator_client.offer(mirrored(1, b"x" * 5_000)) is None  # there was room when it came
    assert comparator_client.refusal() == "buffer_full"
    assert comparator_client.offer(mirrored(2)) == "buffer_full"
    await _written(comparator_client)
    assert comparator_client.refusal() == "buffer_full"  # written, and not taken
    assert [each.request_id for each in transport.frames()] == ["r-1"]


async def test_a_frame_that_no_comparator_would_read_is_shed() -> None:
    comparator_client = connected(MemoryTransport(), 10**9)
    assert comparator_client.offer(mirrored(answer=bytes(20 * 1024 * 1024))) == "too_large"


async def test_without_a_comparator_there_is_nothing_to_offer() -> None:
    assert ComparatorClient(None).refusal() == "no_comparator"
    assert ComparatorClient(None).offer(mirrored()) == "no_comparator"
    await ComparatorClient(None).run()  # there is no socket to keep


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_what_waited_for_a_comparator_that_died_is_counted(error: Exception | None) -> None:
    comparator_client = connected(MemoryTransport())
    for number in range(3):
        comparator_client.offer(mirrored(number))
    comparator_client.connection_lost(error)
    assert (
        comparator_client.lost,
        comparator_client.buffered_bytes,
        comparator_client.is_connected,
    ) == (3, 0, False)
    again = MemoryTransport()
    comparator_client.connection_made(again)
    comparator_client.offer(mirrored(9))
    await _written(comparator_client)
    assert [each.request_id for each in again.frames()] == ["r-9"]
