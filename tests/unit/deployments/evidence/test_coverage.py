import random

import pytest

from penumbra.deployments.evidence.coverage import Coverage
from penumbra.monitoring.observations import Pair, Signal
from tests.support.rollouts import pair

BOTH = frozenset({Signal.DISPLACEMENT, Signal.HARM})
TOLERANCES = {Signal.DISPLACEMENT: 0.2, Signal.HARM: 0.1}


ALPHA = 0.05


def coverage(signals: frozenset[Signal] = BOTH, least: int = 20) -> Coverage:
    return Coverage(signals, least)


def take(covered: Coverage, observed: Pair) -> None:
    covered.count(observed)
    for signal, value in (
        (Signal.DISPLACEMENT, observed.displacement),
        (Signal.HARM, observed.harm),
    ):
        covered.observe(observed, signal, value, TOLERANCES[signal])


def good(number: int, **changes: object) -> Pair:
    return pair(number, **({"harm": 0} | changes))


def test_pairs_of_one_channel_prove_no_other() -> None:
    covered = coverage()
    for number in range(100):
        take(covered, good(number))
    take(covered, good(100, route="responses"))
    assert covered.proven(ALPHA) == {"other": ("chat",)}
    chat, responses = covered.channels(ALPHA)
    assert (chat.channel, chat.pairs, chat.is_proven, chat.unproven) == ("chat", 100, True, ())
    assert (responses.channel, responses.pairs, responses.is_proven) == ("responses", 1, False)
    assert responses.signals == responses.unproven == ("displacement", "harm")


def test_pairs_of_one_slice_prove_no_other() -> None:
    covered = coverage()
    for number in range(100):
        take(covered, good(number, slice="json"))
    take(covered, good(100))
    assert covered.proven(ALPHA) == {"json": ("chat",)}


def test_a_channel_needs_its_pairs_however_strong_its_proof() -> None:
    covered = coverage(least=101)
    for number in range(100):
        take(covered, good(number))
    assert covered.proven(ALPHA) == {}
    take(covered, good(100))
    assert covered.proven(ALPHA) == {"other": ("chat",)}


@pytest.mark.parametrize(
    ("changes", "channel", "signals"),
    [
        ({"route": "completions"}, "completions", ("displacement", "harm")),
        ({"route": "messages"}, "messages", ("harm",)),
        ({"modality": "image"}, "chat+image", ("harm",)),
    ],
)
def test_a_channel_is_judged_by_the_signals_that_it_has(
    changes: dict[str, str], channel: str, signals: tuple[str, ...]
) -> None:
    covered = coverage()
    for number in range(100):
        take(covered, good(number, displacement=None, **changes))
    (found,) = covered.channels(ALPHA)
    assert (found.channel, found.signals) == (channel, signals)
    assert found.is_proven is (signals == ("harm",))


def test_what_no_guardrail_judges_is_never_proven() -> None:
    covered = coverage(frozenset({Signal.DISPLACEMENT, Signal.FAILURE}))
    for number in range(100):
        take(covered, good(number, route="messages"))
    (found,) = covered.channels(ALPHA)
    assert (found.signals, found.is_proven) == ((), False)


def test_later_channels_need_stronger_proof() -> None:
    covered = coverage(frozenset({Signal.HARM}), least=1)
    routes = ("chat", "completions", "responses", "messages")
    for route in routes:  # the order in which they come, whatever they show
        take(covered, good(0, route=route, harm=1))
    needed = {}
    for route in routes:
        for number in range(1, 500):
            take(covered, good(number, route=route))
            if route in covered.proven(ALPHA).get("other", ()):
                needed[route] = number
                break
    assert list(needed) == list(routes)
    assert sorted(needed.values()) == list(needed.values())
    assert needed["chat"] < needed["messages"]


def test_a_channel_at_its_tolerance_is_hardly_ever_released() -> None:
    # Two bad channels beside a good one, which proves the slice as a whole. With alpha .05 at most
    # 30 of 300 runs release a bad one with a probability of 99.9 % (binomial).
    runs, released = 300, 0
    draw = random.Random(16)
    for _ in range(runs):
        covered = coverage(frozenset({Signal.HARM}), least=50)
        for number in range(250):
            take(covered, good(number, route="chat"))
            for bad in ("responses", "messages"):
                take(covered, good(number, route=bad, harm=int(draw.random() < 0.1)))
        found = covered.proven(ALPHA)["other"]
        assert "chat" in found
        released += len(found) > 1
    assert released <= 30


def test_a_later_run_of_the_same_builds_needs_stronger_proof() -> None:
    covered = coverage()
    for number in range(100):
        take(covered, good(number))
    assert covered.proven(ALPHA) == {"other": ("chat",)}
    assert covered.proven(ALPHA / 10_000) == {}
