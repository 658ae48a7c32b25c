"""Model cards: what builds say of themselves, and what is left out while they say nothing."""

from collections.abc import Iterable
from typing import Any

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.gateway.model_cards import FRESH_SECONDS, ModelCards
from penumbra.router.upstream.fake import Fail, FakeUpstream, Step, whole
from penumbra.router.upstream.port import Upstream


class Builds:
    """The builds of one model, each with what it answers next."""

    def __init__(self, **answers: Iterable[Step]) -> None:
        self.answers = answers
        self.now = 100.0
        self.cards = ModelCards(lambda: self.now)
        self.fakes = {name: FakeUpstream("demo", self._script(name)) for name in answers}
        self.upstreams: dict[str, Upstream] = dict(self.fakes)

    def _script(self, name: str) -> Any:
        return lambda _: self.answers[name]

    async def card(self) -> dict[str, Any]:
        await self.cards.refresh({"demo": self.upstreams})
        return self.cards.card("demo", "full", self.upstreams)

    @property
    def asked(self) -> dict[str, int]:
        return {name: len(fake.requests) for name, fake in self.fakes.items()}


def told(length: object = None, root: object = "org/model", name: str = "demo") -> Iterable[Step]:
    card = {"id": name, "object": "model", "root": root, "max_model_len": length}
    return whole({"object": "list", "data": [card, {"id": "adapter", "root": "x"}]})


async def test_a_card_has_the_smallest_context_and_the_root_of_the_baseline() -> None:
    builds = Builds(full=told(8192), int8=told(4096, root="org/model-int8"))
    card = await builds.card()
    assert (card["id"], card["object"], card["root"]) == ("demo", "model", "org/model")
    assert card["max_model_len"] == 4096
    assert card["created"] > 1_700_000_000


@pytest.mark.parametrize(
    "silent",
    [
        [Fail(Outcome.REFUSED)],
        whole({"error": "no"}, 500),
        whole({"object": "list"}),
        whole({"data": [{"id": "demo", "max_model_len": "many"}]}),
        told(2048, name="another"),
    ],
)
async def test_what_no_build_tells_is_left_out(silent: list[Step]) -> None:
    alone = await Builds(full=silent).card()
    assert "max_model_len" not in alone
    assert alone["root"] == "demo"
    assert (await Builds(full=silent, int8=told(4096)).card())["max_model_len"] == 4096


async def test_builds_are_asked_once_a_minute() -> None:
    builds = Builds(full=told(8192), int8=told(4096))
    for _ in range(5):
        await builds.card()
    assert builds.asked == {"full": 1, "int8": 1}
    builds.now += FRESH_SECONDS
    builds.answers["int8"] = told(2048)
    assert (await builds.card())["max_model_len"] == 2048
    assert builds.asked == {"full": 2, "int8": 2}


async def test_a_silent_build_keeps_its_card_and_is_asked_again_soon() -> None:
    builds = Builds(full=told(8192))
    await builds.card()
    builds.now += FRESH_SECONDS
    builds.answers["full"] = [Fail(Outcome.REFUSED)]
    assert (await builds.card())["max_model_len"] == 8192
    builds.answers["full"] = told(1024)
    builds.now += FRESH_SECONDS / 6
    assert (await builds.card())["max_model_len"] == 1024


async def test_a_build_that_left_the_table_is_forgotten() -> None:
    builds = Builds(full=told(8192), int8=told(4096))
    await builds.card()
    del builds.upstreams["int8"]
    assert (await builds.card())["max_model_len"] == 8192
    assert len(builds.cards._cards) == 1
