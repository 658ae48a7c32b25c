"""Places of candidates in splits over the configurations of an installation."""

from penumbra.deployments.history.events import ConfigPayload
from penumbra.deployments.history.split_places import keep_places, places_of
from penumbra.router.flags.routing_table import ModelSnapshot
from tests.support.routing_tables import model


def configured(*variants: str) -> ConfigPayload:
    return ConfigPayload(models={"demo": model(variants=variants)})


def demo(payload: ConfigPayload) -> ModelSnapshot:
    return payload.models["demo"]


def test_places_that_follow_from_the_order_are_left_out() -> None:
    config = configured("full", "int8", "int4")
    assert keep_places(config, {}) == config
    assert keep_places(config, {"demo": {"int8": 0, "int4": 1}}) == config
    assert places_of(demo(config)) == {"int8": 0, "int4": 1}


def test_a_variant_that_is_taken_out_leaves_the_others_where_they_are() -> None:
    kept = keep_places(configured("full", "int4"), {"demo": {"int8": 0, "int4": 1}})
    assert demo(kept).places == places_of(demo(kept)) == {"int4": 1}


def test_another_order_in_the_file_moves_no_variant() -> None:
    kept = keep_places(configured("full", "int4", "int8"), {"demo": {"int8": 0, "int4": 1}})
    assert demo(kept).places == {"int4": 1, "int8": 0}


def test_a_new_variant_gets_a_free_place_and_one_that_comes_back_its_own() -> None:
    known = {"demo": {"int4": 1}}
    assert keep_places(configured("full", "int4", "int2"), known).models["demo"].places == {
        "int4": 1,
        "int2": 0,
    }
    assert keep_places(configured("full", "int8", "int4"), known).models["demo"].places == {}


def test_a_baseline_has_no_place() -> None:
    changed = model(variants=("full", "int8", "int4")).model_copy(update={"baseline": "int8"})
    kept = keep_places(ConfigPayload(models={"demo": changed}), {"demo": {"int8": 0, "int4": 1}})
    assert places_of(demo(kept)) == {"full": 0, "int4": 1}
    assert demo(kept).places == {}
