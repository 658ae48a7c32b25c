"""Rollouts of the demo: a good build goes up the stages, a bad one is stopped, twice.

Once in shadow, before any client gets its answers; once live, after an operator allowed too much.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from penumbra.serve.demo.commands import DemoFailed, Operator, require_no_errors
from penumbra.serve.demo.traffic import MODEL, Traffic, TrafficCounts

EXAMPLES = Path("deployments") / "examples" / "rollouts"
GOOD, BAD = "int8", "int2"

_UP_SECONDS = 480
_DOWN_SECONDS = 90
_SETTLE_SECONDS = 2.0
_COUNTER = "penumbra_post_rollback_candidate_starts_total"
_TIMED_OUT = 6


@dataclass(frozen=True, slots=True)
class Act:
    """Result of one rollout.

    Attributes:
        name: The rollout that was tried.
        seconds: From its beginning to its end.
        counts: Results of the clients in that time.
        outcome: The end, in a sentence.
    """

    name: str
    seconds: float
    counts: TrafficCounts
    outcome: str


class RolloutStory:
    """The acts with rollouts, in order, under traffic that flows already.

    Args:
        operator: Gives the commands.
        traffic: The clients.
    """

    def __init__(self, operator: Operator, traffic: Traffic) -> None:
        self._operator = operator
        self._traffic = traffic

    async def play(self) -> list[str]:
        """Play them all; returns their part of the summary.

        Raises:
            DemoFailed: A rollout did not end as it should, or a client saw an error.
        """
        acts = [await self._good(), await self._bad_in_shadow(), await self._bad_live()]
        late = await self._late_starts()
        if late:
            raise DemoFailed(f"{late} candidate answers were started after a rollback")
        return [
            "## Rollouts",
            "",
            "| rollout | seconds | requests | errors seen by clients | answered by | end |",
            "|---|---|---|---|---|---|",
            *(_row(act) for act in acts),
            "",
            f"Candidate answers started after a rollback was in force: {late}.",
        ]

    async def _good(self) -> Act:
        operator = self._operator
        operator.say(
            "INT8 is compared on every request: in shadow first, then live, stage by stage."
        )
        began = await self._begin(f"{GOOD}.yaml", "half the memory, and faster")
        await self._expect(GOOD, "promoted", _UP_SECONDS)
        await operator.give("rollout", "status", MODEL, GOOD)
        view = await operator.ask("rollout", "status", MODEL, GOOD)
        act = self._end(
            "int8, up the stages",
            began,
            f"promoted after {view['pairs']} compared requests; within tolerance on"
            f" {', '.join(view['proven'])}",
        )
        await operator.give("rollout", "end", MODEL, GOOD, "--reason", "the next build's turn")
        return act

    async def _bad_in_shadow(self) -> Act:
        operator = self._operator
        operator.say("The two-bit build is compared on every request. No client gets its answers.")
        began = await self._begin(f"{BAD}.yaml", "a quarter of the memory")
        await self._expect(BAD, "rolled_back", _DOWN_SECONDS)
        explained = await self._explain()
        act = self._end("int2, in shadow", began, _sentence(explained, "compared requests"))
        if act.counts.by_variant[BAD]:
            raise DemoFailed(f"{act.counts.by_variant[BAD]} clients were answered by a shadow")
        return act

    async def _bad_live(self) -> Act:
        operator = self._operator
        operator.say(
            "An operator allows five times as much and re-arms it: shadow objects no more, it goes"
            " live, and its users judge what they get."
        )
        began = await self._begin(f"{BAD}-live.yaml", "0.15 is plenty, the memory is not")
        await operator.give("rollout", "rearm", MODEL, BAD, "--reason", "with the new budget")
        await self._expect(BAD, "25", _DOWN_SECONDS)
        self._traffic.is_judging = True
        try:
            await self._expect(BAD, "rolled_back", _DOWN_SECONDS)
        finally:
            self._traffic.is_judging = False
        explained = await self._explain()
        act = self._end("int2, live at 25 %", began, _sentence(explained, "judged answers"))
        if not act.counts.by_variant[BAD]:
            raise DemoFailed(f"{BAD} was never live")
        return act

    async def _begin(self, file: str, reason: str) -> float:
        self._traffic.next_counts()
        began = time.monotonic()
        path = str(EXAMPLES / file)
        await self._operator.give("rollout", "apply", "-f", path, "--reason", reason)
        return began

    async def _expect(self, candidate: str, until: str, seconds: int) -> None:
        code = await self._operator.follow(
            *("rollout", "watch", MODEL, candidate, "--until", until, "--timeout", str(seconds))
        )
        if code:
            await self._operator.give("rollout", "status", MODEL, candidate)
            what = "took too long" if code == _TIMED_OUT else "ended otherwise"
            raise DemoFailed(f"the rollout of {candidate} did not come to {until}: it {what}")

    async def _explain(self) -> Any:
        # What was under way when it was rolled back ends, and the last gateway acknowledges.
        await asyncio.sleep(_SETTLE_SECONDS)
        await self._operator.give("rollout", "explain", MODEL, BAD)
        explained = await self._operator.ask("rollout", "explain", MODEL, BAD)
        if not explained["is_reproduced"]:
            raise DemoFailed("the rollback could not be recomputed from what was stored")
        served = self._traffic.counts.last_epochs.get(BAD, 0)
        if served >= explained["epoch"]:
            raise DemoFailed(f"{BAD} was given a request in epoch {served}, after its rollback")
        return explained

    def _end(self, name: str, began: float, outcome: str) -> Act:
        counts = self._traffic.next_counts()
        self._operator.report(name, counts)
        require_no_errors(name, counts)
        return Act(name, time.monotonic() - began, counts, outcome)

    async def _late_starts(self) -> int:
        """Candidate answers begun after a rollback, as the gateways count them."""
        found = 0.0
        async with httpx.AsyncClient() as http:
            for url in self._operator.internal_urls:
                text = (await http.get(f"{url}/metrics")).text
                lines = [line for line in text.splitlines() if line.startswith(_COUNTER)]
                found += sum(float(line.rpartition(" ")[2]) for line in lines)
        return round(found)


def _sentence(explained: Any, unit: str) -> str:
    """Duration and ground of a rollback, in a sentence."""
    times = explained["times"] or {}
    durable = times.get("observed_to_durable_ms")
    acknowledged = times.get("durable_to_acknowledged_ms")
    took = ""
    if durable is not None and acknowledged is not None:
        took = (
            f"; {durable + acknowledged:.0f} ms from the deciding observation to the last of"
            f" {times['gateways']} gateways"
        )
    named = ", ".join(explained["culprits"]) or f"none for sure (most: {explained['suspect']})"
    count = explained["path"][-1]["count"] if explained["path"] else explained["pairs"]
    return (
        f"rolled back by {explained['signal']} after {count} {unit}; culprit slices: {named}{took}"
    )


def _row(act: Act) -> str:
    answered = ", ".join(f"{who} {count}" for who, count in sorted(act.counts.by_variant.items()))
    return (
        f"| {act.name} | {act.seconds:.0f} | {act.counts.requests} | {len(act.counts.errors)} |"
        f" {answered} | {act.outcome} |"
    )
