"""The rollouts among the examples fit the configurations that they are for."""

from pathlib import Path

import pytest

from penumbra.deployments.config.loader import load
from penumbra.deployments.config.rollout_loader import load_rollout
from penumbra.monitoring.observations import Signal

EXAMPLES = Path(__file__).parents[4] / "deployments" / "examples"


@pytest.mark.parametrize(
    ("rollout", "config"),
    [
        ("int8.yaml", "demo.yaml"),
        ("int2.yaml", "demo.yaml"),
        ("int2-live.yaml", "demo.yaml"),
        ("fp8.yaml", "gpu.yaml"),
    ],
)
def test_example_names_what_its_configuration_has(rollout: str, config: str) -> None:
    spec = load_rollout(EXAMPLES / "rollouts" / rollout)
    model = load(EXAMPLES / config).models[spec.model]
    assert spec.candidate in model.variants
    assert spec.candidate != model.baseline
    slices = {rule.name for rule in model.slices}
    assert set(spec.mirror.slices) <= slices
    for guardrail in spec.guardrails:
        assert set(guardrail.slices) <= slices


def test_every_example_is_tested() -> None:
    assert {path.name for path in (EXAMPLES / "rollouts").iterdir()} == {
        "fp8.yaml",
        "int2-live.yaml",
        "int2.yaml",
        "int8.yaml",
    }


def test_the_bad_build_is_judged_by_the_good_build_s_tolerances() -> None:
    good, bad = (load_rollout(EXAMPLES / "rollouts" / f"{name}.yaml") for name in ("int8", "int2"))
    for signal in (Signal.DISPLACEMENT, Signal.HARM, Signal.FAILURE):
        assert good.guardrail(signal) == bad.guardrail(signal)
    assert (good.alpha, good.mirror) == (bad.alpha, bad.mirror)
