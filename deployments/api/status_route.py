"""Route of the status: what clients of all gateways got in the last minute, and whether it is well.

It is about answers only. Whether processes run and which tables they have is in `/gateways`.
"""

from collections.abc import Iterator
from typing import Literal, Self

from fastapi import APIRouter
from pydantic import BaseModel

from penumbra.deployments.api.access import Access
from penumbra.deployments.api.flag_routes import ERRORS, viewer_of
from penumbra.deployments.control.controller import Controller
from penumbra.deployments.gateways.link import Link
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.monitoring.answers import ModelAnswers, by_model, find_problems


class AnswersView(BaseModel):
    """Answers of one kind within the last minute."""

    variant: str
    code: str
    """2xx, 3xx, 401, 403, 404, 429, 4xx, 5xx, `broken_off` or `unanswered`."""
    count: int


class ModelAnswersView(BaseModel):
    """Answers that clients of one model got in the last minute."""

    model: str
    answers: int
    failed: int
    """5xx, broken off, or none that could be passed on."""
    failed_ratio: float
    refused: int
    """Refused by a variant: 3xx, 401, 403, 404 and 429."""
    refused_ratio: float
    by_variant: list[AnswersView]
    """The most frequent first."""

    @classmethod
    def of(cls, found: ModelAnswers) -> Self:
        """Makes the view of one model."""
        whole = max(1, found.answers)
        return cls(
            model=found.model,
            answers=found.answers,
            failed=found.failed,
            failed_ratio=round(found.failed / whole, 6),
            refused=found.refused,
            refused_ratio=round(found.refused / whole, 6),
            by_variant=[
                AnswersView(variant=count.variant, code=count.code, count=count.count)
                for count in found.counts
            ],
        )


class StatusView(BaseModel):
    """The answers that clients of all gateways got in the last minute, judged."""

    epoch: int
    generation: int
    """Generation of the store; it grows when the store has lost changes."""
    is_leading: bool
    """False: this control process stands by, and another one makes the changes."""
    unconfirmed: list[str]
    """Models that stay restricted because the store went back, until an operator changes them."""
    gateways: int
    """Connected ones; their answers are those that are counted."""
    untold: list[str]
    """Gateways among them that do not tell, because their version is older."""
    health: Literal["healthy", "degraded"]
    problems: list[str]
    models: list[ModelAnswersView]
    """Models without an answer in the last minute are left out."""


def status_router(controller: Controller, publisher: Publisher, access: Access) -> APIRouter:
    """Builds the route of the status."""
    router = APIRouter(prefix="/admin/v1", responses=ERRORS)

    @router.get("/status", tags=["status"], dependencies=[viewer_of(access)])
    async def status() -> StatusView:
        """Show what clients of all gateways got in the last minute, and whether that is well."""
        links = publisher.links
        models = by_model(count for link in links for count in link.answers or ())
        unconfirmed = controller.standing.unconfirmed(controller.state.changed)
        aside = [found.text for found in controller.state.aside.values()]
        own_keys = [] if controller.state.keys is None else [*map(_with_own_keys, links)]
        problems = [*aside, *find_problems(models), *map(_restricted, unconfirmed)]
        problems += filter(None, own_keys)
        problems += [text for link in links for text in _killed_there(link)]
        return StatusView(
            epoch=controller.state.epoch,
            generation=controller.standing.generation,
            is_leading=controller.standing.leader_address is None,
            unconfirmed=list(unconfirmed),
            gateways=len(links),
            untold=[link.hello.gateway for link in links if link.answers is None],
            health="degraded" if problems else "healthy",
            problems=problems,
            models=[ModelAnswersView.of(model) for model in models],
        )

    return router


def _with_own_keys(link: Link) -> str | None:
    if link.hello.processes:
        return None
    return (
        f"{link.hello.gateway}: it is of a release that takes keys from its file only, so a revoked"
        " one may be taken there: start it again with this release"
    )


def _killed_there(link: Link) -> Iterator[str]:
    for model, why in link.kills.items():
        yield (
            f"{model} is killed at {link.hello.gateway} itself: {why}; it stays so until `penumbra"
            f" flags kill {model}` is given, and `penumbra flags unkill {model}` after that"
        )


def _restricted(model: str) -> str:
    return (
        f"{model}: the store went back; what was killed, blocked or quarantined before stays so"
        " until its flag or its rollout is changed"
    )
