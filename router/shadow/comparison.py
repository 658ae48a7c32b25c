"""Comparison of one mirrored request: both arms score the same tokens; a share is answered again.

The tokens are those of the variant that answered the client. Total variation is symmetric, so an
answer of the candidate tells as much as one of the baseline; the other arm scores the same tokens.

    answered by     scored by                      answers again, of a share
    baseline        baseline, every candidate      every candidate (A/A: the baseline)
    candidate c     c, baseline                    the baseline

Where the tokens are not known (`penumbra.router.shadow.case`) nothing is scored, and the answers of
both arms are compared by the harm checks alone.

Reading order: Comparison.run.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from penumbra.monitoring.observations import Arm, Pair
from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.shadow.case import Case
from penumbra.router.shadow.comparison_result import ComparisonResult, EngineCall
from penumbra.router.shadow.decode import decoded_of
from penumbra.router.shadow.decode_reader import DecodeReader, DecodeReadings
from penumbra.router.shadow.generation import (
    GenerationResult,
    Generator,
    cut_body,
    is_repeatable,
    shadow_request,
)
from penumbra.router.shadow.pairs import ArmAnswer, ArmPair, ArmResult, pair_of
from penumbra.router.shadow.score_result import TIMEOUT, ScoreResult
from penumbra.router.shadow.scoring import Scorer
from penumbra.router.shadow.timing import with_timing
from penumbra.router.shadow.watch_list import WatchedModel, WatchedRun
from penumbra.router.upstream.port import Upstream, UpstreamRequest

_AGAIN = " again"
"""Name of the baseline's second call; no variant can have it."""


def _is_own_limit(result: ScoreResult | GenerationResult | None) -> bool:
    """Whether a call failed because this process has no descriptors or connections left."""
    return result is not None and result.problem == Outcome.GATEWAY_LIMIT


class Comparison:
    """One case under way.

    Args:
        case: The mirrored request.
        model: Its model as it is watched.
        runs: The runs that it counts in: those whose watches chose it.
        scorer: Gets scores.
        generator: Gets shadow answers.
        most_tokens: Limit of a shadow answer, as in `shadow_request`.
    """

    def __init__(
        self,
        case: Case,
        model: WatchedModel,
        runs: Sequence[WatchedRun],
        scorer: Scorer,
        generator: Generator,
        most_tokens: int = 2048,
    ) -> None:
        self._case = case
        self._model = model
        self._runs = runs
        self._scorer = scorer
        self._generator = generator
        self._most_tokens = most_tokens
        # Once for all: a watch may change while engines are asked.
        self._with_aa = {run.run for run in runs if run.runs_aa(case.mirrored)}
        self._with_answers = {run.run for run in runs if self._generates(run)}
        self._refused_seconds = 0.0
        self._decodings = DecodeReadings()

    async def run(self) -> ComparisonResult:
        """Get scores and answers, and make the pairs. Never raises, except when cancelled."""
        scores, answers = await self._call_engines()
        self._decodings = await self._read_decodings(scores, answers)
        seconds = sum(score.seconds for score in scores.values()) + self._decodings.seconds
        seconds += sum(answer.seconds for answer in answers.values()) + self._refused_seconds
        baseline = self._model.baseline
        sheds: dict[str, ShedReason] = {}
        pairs: dict[str, tuple[Pair, ...]] = {}
        for run in self._runs:
            candidate = run.watch.candidate
            is_asked = candidate in (scores if self._case.token_ids else self._asked)
            found = self._pairs(run, scores, answers) if is_asked else ()
            calls = (scores.get(candidate), answers.get(candidate), answers.get(baseline))
            if any(map(_is_own_limit, calls)):
                sheds[candidate] = ShedReason.FAULT
            elif found:
                pairs[candidate] = found
            else:
                sheds[candidate] = self._obstacle(run, is_asked=is_asked)
        made = [self._call("score", name, score) for name, score in scores.items()]
        made += [self._call("generate", name, answer) for name, answer in answers.items()]
        made += [self._call("score", name, score) for name, score in self._decodings.scores]
        wrong = {name: score.contradiction for name, score in scores.items() if name in pairs}
        contradictions = {name: why for name, why in wrong.items() if why is not None}
        return ComparisonResult(pairs, sheds, seconds, tuple(made), contradictions)

    @property
    def _asked(self) -> set[str]:
        """The candidates whose runs have the other arm answer as well."""
        runs = self._candidates()
        return {run.watch.candidate for run in runs if run.run in self._with_answers}

    def _obstacle(self, run: WatchedRun, *, is_asked: bool) -> ShedReason:
        """Why a run has no pair."""
        if is_asked:
            return ShedReason.BASELINE_SCORE
        is_watched = run in self._candidates()
        return ShedReason.NOT_DRAWN if is_watched else ShedReason.OTHER_ARM

    def _call(self, work: str, name: str, done: ScoreResult | GenerationResult) -> EngineCall:
        is_again = name == _AGAIN
        variant = self._model.baseline if is_again else name
        return EngineCall(work, variant, is_again, done.seconds, done.problem)

    async def _call_engines(self) -> tuple[dict[str, ScoreResult], dict[str, GenerationResult]]:
        """Call all engines at once; an engine batches the calls that it gets."""
        case = self._case
        async with asyncio.TaskGroup() as group:
            scores = {
                name: group.create_task(
                    self._scorer.score(self._upstream(name), case.token_ids, case.start)
                )
                for name in self._variants_to_score()
            }
            answers = {
                name: group.create_task(
                    self._generator.answer(
                        self._upstream(name),
                        self._shadow_request(),
                        is_decode_wanted=self._case.is_decode_comparable,
                    )
                )
                for name in self._variants_to_answer()
            }
        found = {name: task.result() for name, task in answers.items()}
        if any(answer.is_refusal for answer in found.values()):
            found = await self._without_common_refusals(found)
        return {name: task.result() for name, task in scores.items()}, found

    async def _without_common_refusals(
        self, answers: dict[str, GenerationResult]
    ) -> dict[str, GenerationResult]:
        """Leave out the refusals of a request that the build which answered it refuses as well.

        A shadow request is not quite the client's, so it may be at fault itself.
        """
        again = await self._generator.answer(
            self._upstream(self._case.mirrored.variant), self._shadow_request()
        )
        self._refused_seconds = again.seconds
        if not again.is_refusal:
            return answers
        return {name: answer for name, answer in answers.items() if not answer.is_refusal}

    async def _read_decodings(
        self, scores: dict[str, ScoreResult], answers: dict[str, GenerationResult]
    ) -> DecodeReadings:
        case, answered_by = self._case, self._case.mirrored.variant
        if not answers or not case.is_decode_comparable:
            return self._decodings
        said = {answered_by: case.answer, **{name: made.answer for name, made in answers.items()}}
        told = {name: decoded_of(answer, case.most_tokens) for name, answer in said.items()}
        decoded = {name: each for name, each in told.items() if each is not None}
        if len(decoded) < 2:  # nothing to compare it with
            return self._decodings
        usable = {name: score.usable for name, score in scores.items()}
        reader = DecodeReader(
            self._scorer,
            {name: self._upstream(name) for name in (*decoded, self._model.baseline)},
            self._model.baseline,
            (list(case.token_ids), case.start),
            {name: found for name, found in usable.items() if found is not None},
        )
        return await reader.read(decoded)

    def _shadow_request(self) -> UpstreamRequest:
        case = self._case
        tokens = len(case.answer.choices[0].token_ids) or case.answer.completion_tokens or 0
        return shadow_request(
            case.mirrored.path,
            cut_body(case.mirrored.path, case.body, tokens)
            if case.mirrored.is_partial
            else case.body,
            case.mirrored.request_id,
            tokens,
            self._most_tokens,
            is_stream=case.mirrored.is_stream,
        )

    # The calls: variants by name, and the baseline's second call as _AGAIN

    def _candidates(self) -> list[WatchedRun]:
        answered_by = self._case.mirrored.variant
        if answered_by == self._model.baseline:
            return list(self._runs)
        return [run for run in self._runs if run.watch.candidate == answered_by]

    def _variants_to_score(self) -> list[str]:
        runs = self._candidates()
        if not runs or not self._case.token_ids:
            return []
        names = [self._model.baseline, *(run.watch.candidate for run in runs)]
        return [*names, _AGAIN] if any(run.run in self._with_aa for run in runs) else names

    def _generates(self, run: WatchedRun) -> bool:
        """Whether the other arm answers as well."""
        mirrored = self._case.mirrored
        # The time of an answer whose client was slow tells nothing of the build.
        is_late = mirrored.total_seconds > self._generator.deadline_seconds
        is_told = not (is_late and mirrored.was_paused)
        return run.generates(mirrored.draw_id) and is_told and is_repeatable(self._case.body)

    def _variants_to_answer(self) -> list[str]:
        runs = [run for run in self._candidates() if run.run in self._with_answers]
        if not runs:
            return []
        if self._case.mirrored.variant != self._model.baseline:
            return [self._model.baseline]
        names = [run.watch.candidate for run in runs]
        return [*names, _AGAIN] if any(run.run in self._with_aa for run in runs) else names

    def _upstream(self, name: str) -> Upstream:
        return self._model.upstreams[self._model.baseline if name == _AGAIN else name]

    # The pairs

    def _pairs(
        self, run: WatchedRun, scores: dict[str, ScoreResult], answers: dict[str, GenerationResult]
    ) -> tuple[Pair, ...]:
        baseline, candidate = self._model.baseline, run.watch.candidate
        is_candidates = self._case.mirrored.variant == candidate
        other_arm = baseline if is_candidates else candidate
        asked = run.run in self._with_answers and other_arm in answers
        first = self._arm(baseline, scores, answers, is_asked=asked)
        other = self._arm(candidate, scores, answers, is_asked=asked)
        arm_pairs = [ArmPair(Arm.CANDIDATE, first, other, is_candidates)]
        is_possible = not _is_own_limit(answers.get(_AGAIN))
        again_score = scores.get(_AGAIN)
        is_scored = again_score is not None and again_score.usable is not None
        # Without tokens the second arm is asked for an answer or for nothing.
        is_compared = is_scored if self._case.token_ids else _AGAIN in answers
        if run.run in self._with_aa and is_compared and is_possible:
            # Where the candidate answered there is no first answer of the baseline to compare with.
            both = asked and not is_candidates and _AGAIN in answers
            first = self._arm(baseline, scores, answers, is_asked=both)
            again = self._arm(_AGAIN, scores, answers, is_asked=both)
            arm_pairs.append(ArmPair(Arm.BASELINE, first, again))
        case = self._case
        cluster = case.mirrored.cluster(run.watch.cluster)
        found = (
            pair_of(case.mirrored, case.expected, case.tokens, arms, cluster) for arms in arm_pairs
        )
        beside = {Arm.CANDIDATE: other_arm if asked else "", Arm.BASELINE: _AGAIN}
        return tuple(
            with_timing(
                msgspec.structs.replace(
                    pair,
                    route=case.route,
                    modality=case.modality,
                    prompt_tokens=case.start,
                    script=case.expected.writing,
                ),
                case.mirrored,
                case.answer,
                answers.get(beside[pair.arm]),
            )
            for pair in found
            if pair is not None
        )

    def _arm(
        self,
        name: str,
        scores: dict[str, ScoreResult],
        answers: dict[str, GenerationResult],
        *,
        is_asked: bool,
    ) -> ArmResult:
        answer = self._answer_of(name, answers) if is_asked else None
        return ArmResult(scores.get(name), answer, self._decodings.arms.get(name))

    def _answer_of(self, name: str, answers: dict[str, GenerationResult]) -> ArmAnswer:
        if name == self._case.mirrored.variant:
            if self._case.mirrored.total_seconds > self._generator.deadline_seconds:
                return ArmAnswer(problem=TIMEOUT)  # the other arm had no more time
            return ArmAnswer(self._case.answer)
        return ArmAnswer(answers[name].answer, answers[name].problem)
