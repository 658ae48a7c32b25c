import pytest

from penumbra.monitoring.metrics.exposition import samples
from penumbra.monitoring.telemetry import control, gateway


def test_counters_gauges_and_infos_are_written_under_their_names() -> None:
    counted = samples(gateway.LOCAL_TRIPS, {("demo", "int8"): 3})
    assert [(sample.name, sample.labels, sample.value) for sample in counted.samples] == [
        ("penumbra_local_trips_total", {"model": "demo", "candidate": "int8"}, 3)
    ]
    told = samples(control.EPOCH, {(): 7})
    assert [(sample.name, sample.labels, sample.value) for sample in told.samples] == [
        ("penumbra_control_epoch", {}, 7)
    ]
    built = samples(control.BUILD, {("1", "3.11"): 1})
    assert built.samples[0].name == "penumbra_control_build_info"


def test_values_that_do_not_fit_the_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="candidate"):
        samples(gateway.LOCAL_TRIPS, {("demo",): 1})
    with pytest.raises(ValueError, match="histogram"):
        samples(gateway.DURATION, {})
