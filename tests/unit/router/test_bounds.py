"""Bounds that follow from each other, and the two ends that derive theirs from them."""

from itertools import product

from penumbra.deployments.history.state import State
from penumbra.deployments.history.table_size import greatest_bytes
from penumbra.monitoring.answers import MOST_COUNTS, AnswerCount
from penumbra.monitoring.observations import (
    Pair,
    Run,
    ScorerTest,
    SelfTest,
    Signal,
    Trip,
)
from penumbra.router import bounds
from penumbra.router.flags.request_routes import OTHER_ROUTE, ROUTE_NAMES
from penumbra.router.flags.routing_table import ModelSnapshot, Snapshot
from penumbra.router.link.messages import (
    Answers,
    Beat,
    LeaseGrant,
    Renew,
    encode,
    from_gateway,
    push_of,
)
from penumbra.router.link.observation_outbox import RARE_LIMIT, ObservationOutbox
from penumbra.router.mirror.frame import MirrorFrame, frame
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.settings import LimitSettings
from penumbra.router.shadow.settings import QueueLimits
from tests.support.routing_tables import model

NAME = "n" * 64
LONG_MODEL = "m" * bounds.MODEL_NAME_CHARS
SLICES = tuple(f"{number:02}".ljust(64, "s") for number in range(21))
WIDE = "\x01"
"""Takes six bytes in JSON."""


def size(message: object) -> int:
    return len(encode(message).encode())


def test_the_largest_table_fits_through_a_link_with_its_name() -> None:
    name_bytes = len(push_of("s" * 64, Snapshot(epoch=2**63 - 1, models={}), 2**63 - 1, "d" * 64))
    assert bounds.TABLE_BYTES + name_bytes <= bounds.LINK_BYTES
    assert bounds.FLAG_BODY_BYTES <= bounds.TABLE_BYTES


def test_the_largest_event_fits_into_every_database() -> None:
    assert bounds.EVENT_BYTES >= 2 * bounds.TABLE_BYTES + 2 * bounds.SPEC_BODY_BYTES
    assert bounds.EVENT_BYTES <= bounds.STORED_VALUE_BYTES


def test_a_sign_of_life_about_every_model_fits_and_can_be_read() -> None:
    names = [f"{number:04}".ljust(bounds.MODEL_NAME_CHARS, "m") for number in range(bounds.MODELS)]
    stopped = {name: tuple(f"{n}".ljust(64, "c") for n in range(8)) for name in names}
    for message in (Renew(1, stopped), Beat(1, stopped)):
        assert size(message) <= bounds.LINK_BYTES
        assert from_gateway(encode(message)) == message
    assert size(LeaseGrant(1, dict.fromkeys(names, 9.87654321), 10.0)) <= bounds.LINK_BYTES


def test_the_answers_of_a_minute_fit() -> None:
    count = AnswerCount(model=LONG_MODEL, variant=NAME, code="5xx", count=10**9)
    assert size(Answers((count,) * MOST_COUNTS)) <= bounds.LINK_BYTES


def fill(outbox: ObservationOutbox, run: Run) -> None:
    """Report as much of one run as can wait."""
    detail = WIDE * 50_000
    for _ in range(RARE_LIMIT + 1):
        outbox.trip(run, Trip("failure", detail, 1e9))
        outbox.self_test(run, SelfTest(False, float("inf"), detail, 1e9))
        outbox.scorer_test(run, ScorerTest(1e9, "fault", detail))
    for slice_name, signal in product(SLICES, Signal):
        outbox.count(run, slice_name, signal, is_one=True)
    for slice_name, reason, route in product(SLICES, ShedReason, (*ROUTE_NAMES, OTHER_ROUTE)):
        outbox.shed(run, slice_name, reason.value, route)
    for index in range(300):
        outbox.pair(run, Pair("r" * 200, SLICES[0], 2**63 + index))


def test_a_report_fits_however_much_there_is_to_report() -> None:
    outbox = ObservationOutbox("gateway-0", "life-1")
    runs = [Run(LONG_MODEL, NAME, f"{number}".rjust(64, "r")) for number in range(20)]
    for run in runs:
        fill(outbox, run)
    sizes, seen = [], set()
    while (report := outbox.next_report()) is not None:
        sizes.append(size(report))
        seen |= {each.run for each in report.runs}
        outbox.acknowledge("life-1", report.seq)
    assert max(sizes) <= bounds.LINK_BYTES
    assert seen == set(runs)
    assert outbox.is_empty


def test_a_run_whose_pairs_never_end_does_not_keep_the_others_waiting() -> None:
    outbox = ObservationOutbox("comparator", "life-1")
    busy, quiet = Run("demo", "int8", "busy"), Run("demo", "int4", "quiet")
    for number in range(3 * bounds.REPORT_ROWS):
        outbox.pair(busy, Pair(f"r{number}", "other", number))
    outbox.pair(quiet, Pair("q", "other", 1))
    outbox.trip(quiet, Trip("failure", "five in a row", 1e9))
    first = outbox.next_report()
    outbox.acknowledge("life-1", first.seq)
    second = outbox.next_report()
    assert [(each.run, len(each.pairs)) for each in first.runs] == [
        (busy, bounds.REPORT_ROWS), (quiet, 0),
    ]  # fmt: skip
    assert first.runs[1].trips
    assert {each.run: len(each.pairs) for each in second.runs}[quiet] == 1


def test_whatever_is_mirrored_fits_into_a_frame_and_into_the_comparators_queue() -> None:
    body = b"x" * (bounds.COMPARED_BYTES - 8)
    mirrored = MirrorFrame(
        request_id="r" * 256, model=LONG_MODEL, variant=NAME, candidates=(NAME,) * 64, slice=NAME,
        epoch=2**63 - 1, path="/" * 1024, prompt_hash=2**64 - 1, session=2**64 - 1, body=body,
        is_stream=True, answer=b"answered", answered_at=1e9, first_byte_seconds=1.0,
        total_seconds=1.0,
    )  # fmt: skip
    assert len(frame(mirrored)) <= bounds.FRAME_BYTES
    assert QueueLimits().bytes >= bounds.FRAME_BYTES
    assert LimitSettings().body_bytes <= bounds.COMPARED_BYTES


def test_a_small_model_counts_with_all_that_can_be_taken_from_it() -> None:
    plain: dict[str, ModelSnapshot] = {"demo": model()}
    table = Snapshot(epoch=1, models=plain).model_dump_json(exclude_defaults=True)
    assert len(table) < greatest_bytes(State(epoch=1, models=plain)) < len(table) + 1000
