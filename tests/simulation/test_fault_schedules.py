"""A thousand random fault schedules against the shipped control code, in virtual time.

What must hold (DESIGN, section 8) is checked after every step: no candidate answer after an
acknowledged kill or rollback (2), none without a live guard (3). And when all is well again: every
acknowledged change is in the store by its operator, or its loss is said (4, 8), there is one leader
(10), and no live stage ended without answers of its own (11).
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penumbra.deployments.history.events import Kind
from penumbra.deployments.rollouts.payload import RolloutPayload, takes_away
from penumbra.deployments.store import fencing
from penumbra.deployments.store.store import Store
from tests.support.simulated.defects import DEFECTS
from tests.support.simulated.installation import Installation
from tests.support.simulated.schedule import simulate

SCHEDULES = 1000
A_TEST = 50
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Processes that are killed and cut off log a lot, which takes a third of the time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store."""
    file = tmp_path_factory.mktemp("template") / "penumbra.db"
    Store(f"sqlite:///{file}").close()
    return file


@pytest.mark.parametrize("first", range(0, SCHEDULES, A_TEST))
def test_promises_hold_under_random_faults(
    first: int, tmp_path: Path, template: Path, record_property: Callable[[str, object], None]
) -> None:
    began, seen = time.monotonic(), Counter[str]()
    for seed in range(first, first + A_TEST):
        folder = tmp_path / str(seed)
        folder.mkdir()
        seen += tally(simulate(seed, folder, template))
    record_property("fault schedules", A_TEST)
    record_property("fault schedule seconds", time.monotonic() - began)
    # Nothing is proven by schedules in which nothing happens.
    for what in ("takeovers", "acknowledged", "refused", "stages", "rollbacks", "losses", "both"):
        assert seen[what] >= 3, seen


@pytest.mark.parametrize("seed", [7, 29])
def test_a_seed_reproduces_its_schedule(seed: int, tmp_path: Path, template: Path) -> None:
    stories = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        installation = simulate(seed, folder, template)
        events = [(event.epoch, event.at, event.kind) for event in installation.events()]
        stories.append((installation.log, events))
    assert stories[0] == stories[1]


@pytest.mark.parametrize("name", DEFECTS)
def test_planted_defects_are_found(name: str, tmp_path: Path, template: Path) -> None:
    defect = DEFECTS[name]
    with defect.plant(), pytest.raises(AssertionError, match=defect.found_by):
        simulate(defect.seed, tmp_path, template)


def tally(installation: Installation) -> Counter[str]:
    """Count the events of a simulation."""
    events = installation.events()
    changes = [event.payload for event in events if isinstance(event.payload, RolloutPayload)]
    store = Store(installation.database.url)
    terms = store.look(fencing.read).fence
    store.close()
    return Counter(
        takeovers=terms - 1,
        acknowledged=len(installation.operator.acknowledged),
        refused=len(installation.operator.refused),
        stages=sum(is_next_stage(change) for change in changes),
        rollbacks=sum(change.decided is not None and takes_away(change) for change in changes),
        losses=len(installation.losses),
        both=any(is_both_live(change) for change in changes),
        recoveries=sum(event.kind is Kind.RECOVER for event in events),
    )


def is_both_live(change: RolloutPayload) -> bool:
    """Whether a change left two candidates with a share."""
    flag = change.flag_after
    return sum(share > 0 and name not in flag.blocked for name, share in flag.split.items()) > 1


def is_next_stage(change: RolloutPayload) -> bool:
    """Whether a change is an advance."""
    before = change.before
    return before is not None and change.after.record.stage_index > before.record.stage_index
