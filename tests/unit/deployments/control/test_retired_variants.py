"""Variants that are taken out of the configuration, over restarts of the control process."""

from pathlib import Path

import pytest

from penumbra.router.flags.evaluate import compile_model, evaluate
from tests.support.control_plane import control_plane, payload, split_change
from tests.support.routing_tables import context, model

USERS = [f"user-{number}" for number in range(400)]


async def _users_of(folder: Path, share: float | None, *variants: str) -> dict[str, str]:
    """User -> variant, after a start with these variants on the store in the folder."""
    config = payload(demo=model(variants=variants))
    async with control_plane(folder, config=config) as plane:
        if share is not None:
            await plane.controller.apply(split_change(share))
        table = plane.controller.state.models["demo"]
        compiled = compile_model("demo", table)
        return {user: evaluate(compiled, context(user)).variant for user in USERS}


@pytest.mark.parametrize(
    "later",
    [
        [("full", "int8")],
        [("full", "int8", "int4")],
        [("full", "int3", "int8")],
        [("int8", "full")],
        [("full", "int8"), ("full", "int2", "int8"), ("full", "int8", "int2")],
        [("full", "int8"), ("full", "int4", "int8")],
    ],
)
async def test_no_user_of_a_candidate_moves_when_others_come_and_go(
    tmp_path: Path, later: list[tuple[str, ...]]
) -> None:
    before = await _users_of(tmp_path, 25, "full", "int4", "int8")
    assert set(before.values()) == {"full", "int8"}
    for variants in later:
        assert await _users_of(tmp_path, None, *variants) == before


async def test_a_start_with_the_same_file_is_no_change(tmp_path: Path) -> None:
    for variants, epoch in [(("full", "int4", "int8"), 1), (("full", "int8"), 2)]:
        config = payload(demo=model(variants=variants))
        for _ in range(2):
            async with control_plane(tmp_path, config=config) as plane:
                assert plane.controller.state.epoch == epoch
