"""Observations of a candidate and the messages that carry them to the control process. Pure.

A *report* carries observations from one process to the control process. It is made durable before
it is acknowledged. (source, process_start_id, seq) identifies it, so a report that is sent twice
counts once.

Reading order: Run, Pair, Counts, Report.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Harm = Annotated[int, msgspec.Meta(ge=-1, le=1)]
Difference = Annotated[float, msgspec.Meta(ge=-1.0, le=1.0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Ratio = Annotated[float, msgspec.Meta(gt=0.0)]


class Signal(StrEnum):
    """Signals that a guardrail may watch; larger is worse. The values are stored and exported."""

    DISPLACEMENT = "displacement"
    """Per pair, [0, 1]: mean over response tokens of max(0, 1 - q/p); total variation, expected."""
    HARM = "harm"
    """Per pair, {-1, 0, 1}: fail(candidate) - fail(baseline) over the harm checks."""
    DECODE_GAP = "decode_gap"
    """Per pair, [-0.1, 0.1]: how far the candidate's decoding lies from its own prefill, minus the
    same of the baseline."""
    FAILURE = "failure"
    """Per candidate request, {0, 1}: it ended in one of `vocabulary.FAILURES`."""
    TTFT = "ttft"
    """Per live candidate answer, {0, 1}: time to first byte over the baseline's p90 x a factor."""
    TPOT = "tpot"
    """The same for the time per output piece of a stream."""
    FEEDBACK = "feedback"
    """Per judged candidate answer, {0, 1}: the user was not content."""


class Arm(StrEnum):
    """The build that a pair compares with the baseline."""

    CANDIDATE = "candidate"
    BASELINE = "baseline"
    """The A/A arm: the baseline against itself, which tells whether the instrument works."""


class AnsweredBy(StrEnum):
    """The build that answered the client of a pair: its tokens were scored, in its mode.

    Distance and harm depend on it, also between builds that do not change: greedy tokens are those
    that the build which chose them overrates. So each kind of pair is judged by itself.
    """

    BASELINE = "baseline"
    CANDIDATE = "candidate"


class Run(msgspec.Struct, frozen=True):
    """One run of a rollout; evidence of another run is never counted into it."""

    model: str
    candidate: str
    id: str
    """Changes when the rollout is applied or re-armed, and with either build's fingerprint."""


class Pair(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mirrored request, as both arms saw it. Holds no text."""

    request_id: str
    slice: str
    cluster: int
    """64-bit hash of the prompt: one bet for each, however often it is asked."""
    arm: Arm = Arm.CANDIDATE
    answered_by: str = ""
    """The variant whose answer the client got, and whose tokens were scored."""
    session: int = 0
    """64-bit hash of the session; 0 if it has none. One turn is mirrored of each."""
    tokens: int = 0
    """Response tokens that were scored."""
    displacement: Share | None = None
    kl: float | None = None
    """Mean over the tokens of r - 1 - ln r, nats."""
    agreement: float | None = None
    """Share of the tokens on which both arms would have chosen the same one greedily."""
    divergence: int | None = None
    """Index of the first token on which they would not; None if there is none."""
    harm: Harm | None = None
    """None if the other arm was not asked to generate."""
    failed: tuple[str, ...] = ()
    """Harm checks that the candidate (in the A/A arm: the second baseline) failed."""
    failed_baseline: tuple[str, ...] = ()
    missing: str | None = None
    """Why the candidate gave no usable score or answer although it was asked; None if it did."""
    not_finite: bool = False
    """A log-probability of the candidate was NaN or infinite: trips at once."""
    engine_seconds: float = 0.0
    """Cost: time for which engines worked on it, as seen from outside."""
    at: float = 0.0
    """When the last part of it was observed; Unix seconds."""
    decode_gap: Difference | None = None
    """Gap of the candidate's decoding minus the baseline's, both cut at `decode_gap.LIMIT`; None
    unless both answered and told their log-probabilities."""
    own_gap: Share | None = None
    """Mean of 1 - exp(-|decoding - prefill|) of the candidate, on tokens that it made."""
    baseline_gap: Share | None = None
    """The same of the baseline: the floor."""
    decode_apart: Share | None = None
    """The same between the candidate's decoding and the baseline's prefill; None if not asked."""
    prefill_apart: Share | None = None
    """The same between the candidate's prefill and the baseline's; None likewise."""
    route: str = "chat"
    """Name of the request's route; an older comparator does not say."""
    modality: str = "text"
    """Modality of its prompt, likewise."""
    first_ratio: Ratio | None = None
    """Time to the first data of a stream: the client's answer's over the shadow answer's. None if
    either was not timed, and where the gateway had the baseline's answers to judge it by."""
    whole_ratio: Ratio | None = None
    """The same for the time of an answer that is no stream."""
    pace_ratio: Ratio | None = None
    """The same for the time per output token of a stream."""
    prompt_tokens: Count = 0
    """Tokens of its prompt; 0 if they are not known, and from an older comparator."""
    epoch: Count = 0
    """Epoch of the routing table by which its request was decided; 0 from an older comparator."""
    script: str = ""
    """Writing that its prompt wants of an answer, one of `writing.WRITINGS`; empty if not told."""

    def kind(self, candidate: str) -> AnsweredBy:
        """Tells which build answered the client.

        Args:
            candidate: The candidate of the run. Every other name is the baseline's, and so is none:
                the comparator has always named the candidate.
        """
        is_candidates = self.answered_by == candidate
        return AnsweredBy.CANDIDATE if is_candidates else AnsweredBy.BASELINE


class Counts(msgspec.Struct, frozen=True):
    """Observations of a {0, 1} signal since the last report."""

    slice: str
    signal: Signal
    zeros: Count
    ones: Count


class Trip(msgspec.Struct, frozen=True):
    """Notice that a process has taken the candidate out of service by itself."""

    signal: str
    """A `Signal`, or `not_finite`, `unhealthy`, `fingerprint`."""
    detail: str
    at: float


class SelfTest(msgspec.Struct, frozen=True):
    """Result of scoring the baseline against itself."""

    is_ok: bool
    largest_gap: float
    """Largest absolute difference of log-probabilities, nats; infinite if it could not be done."""
    detail: str
    at: float


class ScorerTest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Result of holding the candidate's scorer against its decoding, on tokens that it made."""

    at: float
    fault: str | None = None
    """A `ScorerFault`; None if the two agree, or if the engine tells no log-probabilities."""
    detail: str = ""
    gap: Share = 0.0
    """Between its decoding and its prefill, on answers to fixed prompts."""
    baseline_gap: Share = 0.0
    """The same of the baseline: the floor."""


class Shed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Number of requests that were not compared, for one reason.

    They are mirrored ones, but for those of `no_counterpart`.
    """

    slice: str
    reason: str
    count: int
    route: str = ""
    """Name of the route, of requests that cannot be compared; an older gateway does not say."""


def no_counterpart(signal: Signal) -> str:
    """Names, as a reason of `Shed`, the live answers whose latency was not judged.

    The baseline gave too few answers in the same slice lately: it has little of its traffic, or, at
    100 % live, none. Those of them that a shadow answer was timed beside come with their pairs, and
    may be judged by it.
    """
    return f"no_counterpart_{signal.value}"


class RunReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """The observations of one run in a report."""

    run: Run
    pairs: tuple[Pair, ...] = ()
    counts: tuple[Counts, ...] = ()
    trips: tuple[Trip, ...] = ()
    self_tests: tuple[SelfTest, ...] = ()
    sheds: tuple[Shed, ...] = ()
    fingerprints: dict[str, str] = {}
    """Variant -> digest, when it was read anew."""
    builds: dict[str, dict[str, str]] = {}
    """Variant -> facts of which that digest is made; empty in reports of older processes."""
    scorer_tests: tuple[ScorerTest, ...] = ()


class Report(msgspec.Struct, frozen=True, tag="report"):
    """One message of observations."""

    source: str
    """Id of the gateway or the comparator."""
    process_start_id: str = msgspec.field(name="incarnation")
    """Random id of this process start."""
    seq: int
    """1, 2, 3, ... within a process start."""
    runs: tuple[RunReport, ...]
