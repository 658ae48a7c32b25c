import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.deployments.history.events import ConfigPayload, Draft, Event, FlagPayload, Kind
from penumbra.deployments.history.state import EMPTY, fold
from penumbra.router.flags.routing_table import Flag
from penumbra.router.flags.tenant_keys import KeySettings
from tests.support.routing_tables import flags, model

AT = datetime(2026, 1, 1, tzinfo=UTC)


def configured(epoch: int, *names: str, flag: Flag | None = None) -> Event:
    models = {name: model(flag) for name in names}
    draft = Draft(
        kind=Kind.CONFIG, actor="a", reason="r", model=None, payload=ConfigPayload(models=models)
    )
    return Event.of(draft, epoch, AT)


def changed(epoch: int, name: str, after: Flag) -> Event:
    draft = Draft(
        kind=Kind.SET,
        actor="a",
        reason="r",
        model=name,
        payload=FlagPayload(before=Flag(), after=after),
    )
    return Event.of(draft, epoch, AT)


@given(st.lists(flags(), max_size=5), st.integers(0, 6))
def test_the_state_is_the_last_flag_however_the_events_are_cut(
    history: list[Flag], cut: int
) -> None:
    events = [configured(1, "demo")]
    events += [changed(epoch, "demo", flag) for epoch, flag in enumerate(history, start=2)]
    whole = fold(events)
    assert fold(events[cut:], fold(events[:cut])) == whole
    assert whole.models["demo"].flag == (history[-1] if history else Flag())
    assert whole.epoch == whole.snapshot().epoch == len(events)


@given(flags())
def test_an_event_survives_being_stored(flag: Flag) -> None:
    for event in (configured(1, "demo", flag=flag), changed(2, "demo", flag)):
        columns = event.model_dump(exclude={"payload"}, mode="json")
        assert Event.stored(columns, event.payload.model_dump_json()) == event


def test_a_configuration_keeps_the_flags_in_force() -> None:
    killed = Flag(killed=True)
    state = fold([configured(1, "demo"), changed(2, "demo", killed), configured(3, "demo", "new")])
    assert state.models["demo"].flag == killed
    assert state.models["new"].flag == Flag()


def test_a_model_that_comes_back_has_its_flag_back() -> None:
    killed = Flag(killed=True)
    gone = [configured(1, "demo"), changed(2, "demo", killed), configured(3, "other")]
    assert "demo" not in fold(gone).models
    assert fold([*gone, configured(4, "demo")]).models["demo"].flag == killed


def test_changed_is_the_epoch_in_which_a_model_or_its_flag_last_changed() -> None:
    events = [configured(1, "demo", "chat"), changed(2, "demo", Flag(killed=True))]
    assert fold(events).changed == {"demo": 2, "chat": 1}
    assert fold([*events, configured(3, "demo", "chat", "new")]).changed == {
        "demo": 2,
        "chat": 1,
        "new": 3,
    }


def test_missing_events_are_noticed() -> None:
    with pytest.raises(ValueError, match="epoch 2 follows epoch 0"):
        fold([changed(2, "demo", Flag())])


def test_a_flag_of_a_model_never_configured_is_noticed() -> None:
    with pytest.raises(ValueError, match="never configured"):
        fold([changed(1, "demo", Flag())])


def test_nothing_has_happened_at_epoch_zero() -> None:
    assert fold([]) == EMPTY
    assert EMPTY.snapshot().models == {}


KEYS = (KeySettings(tenant="acme", sha256="a" * 64),)


def with_keys(epoch: int, keys: tuple[KeySettings, ...] | None) -> Event:
    event = configured(epoch, "demo")
    payload = ConfigPayload(models={"demo": model()}, keys=keys)
    return event.model_copy(update={"payload": payload})


def test_a_configuration_that_says_nothing_of_keys_leaves_them() -> None:
    state = fold([with_keys(1, KEYS), with_keys(2, None)])
    assert (state.keys, state.configured) == (KEYS, 2)
    assert state.snapshot().keys == KEYS
    assert fold([with_keys(3, ())], state).keys == ()
    assert fold([configured(1, "demo")]).keys is None


def test_an_event_without_keys_is_written_as_before_there_were_any() -> None:
    _, written = with_keys(1, None).columns()
    assert set(json.loads(written)) == {"models"}
    event = with_keys(1, KEYS)
    assert Event.stored(*event.columns()) == event
