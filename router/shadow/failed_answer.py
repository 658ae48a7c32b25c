"""Comparison of a request that the baseline failed: there are no tokens to score, only harm.

A candidate's failure to answer a shadow request is harm, so the baseline's failure to answer a
client is harm the other way round. Otherwise a build that fails no more often than the baseline
would look worse than it: only one of the two would be counted.

Reading order: FailedAnswer.compare.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from penumbra.monitoring.observations import Arm, Pair
from penumbra.monitoring.signals.by_route import expectations
from penumbra.monitoring.signals.harm import judge
from penumbra.router.flags.modality import UNKNOWN, modality_of
from penumbra.router.flags.request_routes import route_of
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.shadow.comparison_result import ComparisonResult, EngineCall
from penumbra.router.shadow.generation import (
    GenerationResult,
    Generator,
    Unanswerable,
    is_repeatable,
    read_body,
    shadow_request,
)
from penumbra.router.shadow.watch_list import WatchedModel, WatchedRun
from penumbra.router.upstream.port import UpstreamRequest

_Key = tuple[Arm, str]
"""(arm, the variant that answers in it)."""


class FailedAnswer:
    """One request that the baseline failed, put to the builds that are compared with it.

    Args:
        mirrored: The request.
        model: Its model as it is watched.
        runs: The runs that it counts in.
        generator: Gets shadow answers.
    """

    def __init__(
        self,
        mirrored: MirrorFrame,
        model: WatchedModel,
        runs: Sequence[WatchedRun],
        generator: Generator,
    ) -> None:
        self._mirrored = mirrored
        self._model = model
        self._body = _body_of(mirrored)
        self._route = route_of(mirrored.path.encode("latin-1"))
        self._modality = modality_of(self._route, self._body or {})
        self._runs = [run for run in runs if self._may_ask(run)]
        self._left_out = [run for run in runs if run not in self._runs]
        self._with_aa = {run.run for run in self._runs if run.runs_aa(mirrored)}
        self._generator = generator

    def _may_ask(self, run: WatchedRun) -> bool:
        """Whether the request may be answered again, and is one of the run's share."""
        is_known = self._body is not None and self._modality != UNKNOWN
        may_repeat = is_known and is_repeatable(self._body or {})
        return may_repeat and run.generates(self._mirrored.draw_id)

    async def compare(self, most_tokens: int) -> ComparisonResult:
        """Get the answers, and make the pairs.

        Args:
            most_tokens: Limit of a shadow answer, as in `shadow_request`.
        """
        answers = await self._answers(most_tokens)
        pairs: dict[str, tuple[Pair, ...]] = {}
        sheds = {run.watch.candidate: ShedReason.ERROR for run in self._left_out}
        for run in self._runs:
            found = tuple(self._pairs(run, answers))
            if found:
                pairs[run.watch.candidate] = found
            else:
                sheds[run.watch.candidate] = ShedReason.ERROR
        calls = tuple(
            EngineCall("generate", name, arm is Arm.BASELINE, each.seconds, each.problem)
            for (arm, name), each in answers.items()
        )
        return ComparisonResult(pairs, sheds, sum(call.seconds for call in calls), calls)

    async def _answers(self, most_tokens: int) -> dict[_Key, GenerationResult]:
        if self._body is None or not self._runs:
            return {}
        request = self._request(self._body, most_tokens)
        keys: list[_Key] = [(Arm.CANDIDATE, run.watch.candidate) for run in self._runs]
        if self._with_aa:
            keys.append((Arm.BASELINE, self._model.baseline))
        async with asyncio.TaskGroup() as group:
            tasks = {
                key: group.create_task(
                    self._generator.answer(self._model.upstreams[key[1]], request)
                )
                for key in keys
            }
        return {key: task.result() for key, task in tasks.items()}

    def _request(self, body: dict[str, Any], most_tokens: int) -> UpstreamRequest:
        mirrored = self._mirrored
        is_stream = body.get("stream") is True
        return shadow_request(
            mirrored.path, body, mirrored.request_id, 0, most_tokens, is_stream=is_stream
        )

    def _pairs(self, run: WatchedRun, answers: dict[_Key, GenerationResult]) -> list[Pair]:
        made = [self._pair(run, Arm.CANDIDATE, answers.get((Arm.CANDIDATE, run.watch.candidate)))]
        if run.run in self._with_aa:
            made.append(self._pair(run, Arm.BASELINE, answers.get((Arm.BASELINE, self._baseline))))
        return [pair for pair in made if pair is not None]

    @property
    def _baseline(self) -> str:
        return self._model.baseline

    def _pair(self, run: WatchedRun, arm: Arm, answer: GenerationResult | None) -> Pair | None:
        """Make a pair; None if the other arm failed as well, so that neither is to blame."""
        if answer is None or answer.answer is None:
            return None
        mirrored = self._mirrored
        expected = expectations(mirrored.path, mirrored.body)
        result = judge(expected, answer.answer, None)
        return Pair(
            request_id=mirrored.request_id,
            slice=mirrored.slice,
            cluster=mirrored.cluster(run.watch.cluster),
            arm=arm,
            answered_by=mirrored.variant,
            session=mirrored.session,
            harm=result.harm,
            failed=result.failed,
            failed_baseline=result.failed_baseline,
            route=self._route,
            modality=self._modality,
            script=expected.writing,
        )


def _body_of(mirrored: MirrorFrame) -> dict[str, Any] | None:
    try:
        return read_body(mirrored.body)
    except Unanswerable:
        return None
