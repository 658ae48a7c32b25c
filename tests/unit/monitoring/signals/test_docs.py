import re
from pathlib import Path

import pytest

from penumbra.monitoring.observations import Pair, Signal
from penumbra.monitoring.signals import calibration, code, lengths, schemas
from penumbra.monitoring.signals.harm import SHORT_LIMIT_TOKENS, Check

DOCS = (Path(__file__).parents[4] / "docs" / "signals.md").read_text(encoding="utf-8")
ROWS = {
    name: row
    for row in re.findall(r"^\|.*\|$", DOCS.partition("## What the checks cannot")[0], re.MULTILINE)
    for name in re.findall(r"[\w]+", row.split("|")[1])
}


@pytest.mark.parametrize("name", [*Check, *Signal, "kl", "agreement", "divergence", "not_finite"])
def test_every_check_and_signal_is_documented(name: str) -> None:
    assert name in ROWS


def test_nothing_is_documented_that_is_not_there() -> None:
    known = {*Check, *Signal, *Pair.__struct_fields__, "signal", "check"}
    assert set(ROWS) <= known


@pytest.mark.parametrize(
    "figure",
    [
        f"{calibration.FACTOR:g} × mean",
        f"+ {calibration.LEAST_OVER_AA:g}",
        f"at most {calibration.MOST:g}",
        f"from {lengths.LEAST_ANSWERS} on",
        f"{lengths.LEAST_CHARS} characters or more",
        f"limit of {SHORT_LIMIT_TOKENS} tokens",
        f"over {schemas.LARGEST_SCHEMA_BYTES // 1024} KiB",
        f"{schemas.MOST_STEPS:,} steps or {schemas.DEEPEST_LEVEL} levels",
        f"over {code.LARGEST_BLOCK_CHARS // 1024} KiB",
    ],
)
def test_the_documented_thresholds_are_those_of_the_code(figure: str) -> None:
    assert figure in re.sub(r"\s+", " ", DOCS)
