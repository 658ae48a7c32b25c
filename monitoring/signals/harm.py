"""Harm checks: whether an answer is broken, and which of two builds' answers is worse. Pure.

No check knows the right answer. Each finds a fault that shows in the answer itself, or beside the
other build's answer to the same request. A check that mistakes something for harm does so in both
builds alike, and a rule that compares two answers treats both the same. So between equal builds
harm has mean zero, however good or bad the checks are.

Reading order: answer.read_answer, expectations.expectations, checks, accuse, judge.
"""

from enum import StrEnum

import msgspec

from penumbra.monitoring.signals.answer import Answer, Choice, ToolCall, read_answer
from penumbra.monitoring.signals.code import has_broken_block
from penumbra.monitoring.signals.expectations import Expectations, expectations
from penumbra.monitoring.signals.lengths import chars, has_drifted
from penumbra.monitoring.signals.refusals import is_refusal, may_refuse_unseen
from penumbra.monitoring.signals.repetition import ends_in_loop
from penumbra.monitoring.signals.schemas import is_valid, parse
from penumbra.monitoring.signals.scripts import NONE
from penumbra.monitoring.signals.writing import LATIN, holds, writing

__all__ = [
    "Answer", "Check", "Expectations", "HarmResult", "accuse", "checks", "expectations", "harm",
    "judge", "read_answer",
]  # fmt: skip

SHORT_LIMIT_TOKENS = 16
"""Under a limit of fewer tokens, being cut is chance."""

_CUT = "length"
_UNPARSED_CALLS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function=", "<|tool_call")


class Check(StrEnum):
    """Faults of an answer. The values are stored and exported."""

    NO_ANSWER = "no_answer"
    """There is none, or nothing that could be read as one."""
    INCOMPLETE = "incomplete"
    """It broke off, or held an error."""
    EMPTY = "empty"
    """A choice has neither text nor a tool call, or there are fewer choices than asked for."""
    JSON = "json"
    """JSON was asked for, or the other build gave it, and this is none."""
    JSON_SCHEMA = "json_schema"
    """It is JSON, but not of the schema that was asked for."""
    TOOL_ARGUMENTS = "tool_arguments"
    """A tool call's arguments are no JSON object or not of its schema, or a call is in the text."""
    UNKNOWN_TOOL = "unknown_tool"
    """It calls a tool that was not offered."""
    MISSING_TOOL = "missing_tool"
    """It calls no tool though one had to be called."""
    CODE = "code"
    """A fenced block that says Python or JSON does not parse."""
    REPETITION = "repetition"
    """It ends in a loop."""
    REFUSAL = "refusal"
    """It begins as a refusal does."""
    SCRIPT = "script"
    """The other build answers in the prompt's writing, this one in another."""
    LENGTH = "length"
    """It was cut by the limit, the other build's answer was not."""
    LENGTH_DRIFT = "length_drift"
    """It is several times as long or short as the other build's, and that is the unusual one."""


class HarmResult(msgspec.Struct, frozen=True):
    """Result of comparing two builds' answers to one request."""

    harm: int
    """-1, 0 or 1: whether the candidate's answer failed less whether the baseline's did."""
    failed: tuple[str, ...]
    """Checks that the candidate failed, sorted."""
    failed_baseline: tuple[str, ...]


def judge(wanted: Expectations, candidate: Answer | None, baseline: Answer | None) -> HarmResult:
    """Compare two builds' answers to one request by every check.

    Args:
        wanted: What the request wants.
        candidate: The candidate's answer. None if it gave none, which is a failed check.
        baseline: The baseline's answer, likewise.
    """
    failed, failed_baseline = checks(wanted, candidate), checks(wanted, baseline)
    if candidate is not None and baseline is not None:
        accused, accused_baseline = accuse(wanted, candidate, baseline)
        failed, failed_baseline = failed | accused, failed_baseline | accused_baseline
        # Of two refusals in two languages only one may be known; then neither counts.
        if Check.REFUSAL in failed ^ failed_baseline:
            other = baseline if Check.REFUSAL in failed else candidate
            if may_refuse_unseen(_text(other)):
                failed, failed_baseline = (
                    failed - {Check.REFUSAL},
                    failed_baseline - {Check.REFUSAL},
                )
    return HarmResult(
        harm=harm(failed, failed_baseline),
        failed=tuple(sorted(map(str, failed))),
        failed_baseline=tuple(sorted(map(str, failed_baseline))),
    )


def harm(candidate: frozenset[str] | None, baseline: frozenset[str] | None) -> int:
    """Harm of one pair: -1, 0 or 1; larger is worse.

    Args:
        candidate: Names of the checks that the candidate failed; None if it gave no answer.
        baseline: The same of the baseline.
    """
    return _has_failed(candidate) - _has_failed(baseline)


def _has_failed(failed: frozenset[str] | None) -> bool:
    return failed is None or bool(failed)


def checks(wanted: Expectations, answer: Answer | None) -> frozenset[str]:
    """Names of the checks that an answer fails by itself.

    Every choice of it is looked at, in no order; one failing choice is enough.
    """
    if answer is None:
        return frozenset({Check.NO_ANSWER})
    if wanted.is_partial:
        return frozenset().union(*map(_check_part, answer.choices))
    return _check_whole(wanted, answer)


def _check_whole(wanted: Expectations, answer: Answer) -> frozenset[str]:
    failed: set[str] = set()
    if not answer.is_complete:
        failed.add(Check.INCOMPLETE)
    if len(answer.choices) < wanted.choices:
        failed.add(Check.EMPTY)
    for choice in answer.choices:
        failed |= _check_tools(wanted, choice)
        if choice.refusal:
            failed.add(Check.REFUSAL)
        elif choice.text.strip():
            failed |= _check_text(wanted, choice)
        elif not choice.tool_calls and wanted.limit_tokens != 0:
            failed.add(Check.EMPTY)
    return frozenset(failed)


def _check_part(choice: Choice) -> set[str]:
    """Check the beginning of an answer, of which it is not known whether it was all."""
    failed: set[str] = set()
    if ends_in_loop(choice.text, is_finished=False):
        failed.add(Check.REPETITION)
    if choice.refusal or is_refusal(choice.text):
        failed.add(Check.REFUSAL)
    return failed


def _check_text(wanted: Expectations, choice: Choice) -> set[str]:
    failed: set[str] = set()
    # Text beside a tool call is a remark, not the answer.
    if wanted.wants_json and not choice.tool_calls:
        is_json, value = parse(choice.text)
        if not is_json:
            failed.add(Check.JSON)
        elif wanted.schema is not None and not is_valid(value, wanted.schema):
            failed.add(Check.JSON_SCHEMA)
    is_finished = choice.finish_reason != _CUT
    if ends_in_loop(choice.text, is_finished=is_finished):
        failed.add(Check.REPETITION)
    if has_broken_block(choice.text, is_finished=is_finished):
        failed.add(Check.CODE)
    if is_refusal(choice.text):
        failed.add(Check.REFUSAL)
    return failed


def _check_tools(wanted: Expectations, choice: Choice) -> set[str]:
    failed: set[str] = set()
    for call in choice.tool_calls:
        if call.name not in wanted.tools:
            failed.add(Check.UNKNOWN_TOOL)
        elif not _has_valid_arguments(call, wanted.tools[call.name]):
            failed.add(Check.TOOL_ARGUMENTS)
    if wanted.must_call and not choice.tool_calls:
        failed.add(Check.MISSING_TOOL)
    # What an engine cannot parse as a call it hands over as text.
    if wanted.tools and any(mark in choice.text for mark in _UNPARSED_CALLS):
        failed.add(Check.TOOL_ARGUMENTS)
    return failed


def _has_valid_arguments(call: ToolCall, schema: bytes | None) -> bool:
    # A tool without parameters may be called with nothing at all.
    is_json, arguments = parse(call.arguments.strip() or "{}")
    if not is_json or not isinstance(arguments, dict):
        return False
    return schema is None or is_valid(arguments, schema)


def accuse(
    wanted: Expectations, answer: Answer, other: Answer
) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the checks that each of two answers fails beside the other one.

    Exchanging the answers exchanges the results. Of each check at most one of them is accused.
    """
    return _accuse_first(wanted, answer, other), _accuse_first(wanted, other, answer)


def _accuse_first(wanted: Expectations, answer: Answer, other: Answer) -> frozenset[str]:
    failed: set[str] = set()
    if wanted.is_partial:
        is_wrong = _is_in_wrong_writing(wanted.writing, answer, other)
        return frozenset({Check.SCRIPT} if is_wrong else ())
    if not wanted.wants_json and _is_all_json(other) and not _is_all_json(answer):
        failed.add(Check.JSON)
    if _is_in_wrong_writing(wanted.writing, answer, other):
        failed.add(Check.SCRIPT)
    has_room = wanted.limit_tokens is None or wanted.limit_tokens >= SHORT_LIMIT_TOKENS
    if has_room and _is_cut(answer) and not _is_cut(other):
        failed.add(Check.LENGTH)
    if has_drifted(chars(answer), chars(other), wanted.usual_chars):
        failed.add(Check.LENGTH_DRIFT)
    return frozenset(failed)


def _is_all_json(answer: Answer) -> bool:
    """Whether every choice is a JSON object or array, which is never written by accident."""
    return all(
        choice.text.lstrip()[:1] in ("{", "[") and parse(choice.text)[0]
        for choice in answer.choices
    )


def _is_in_wrong_writing(prompt: str, answer: Answer, other: Answer) -> bool:
    if prompt == NONE or writing(_text(other)) != prompt:
        return False
    text = _text(answer)
    found = writing(text)
    if found in (prompt, NONE):
        return False
    # Latin words stand in texts of every language.
    return found != LATIN or not holds(text, prompt)


def _text(answer: Answer) -> str:
    # Sorted, so that the order of the choices does not matter.
    return "\n".join(sorted(choice.text for choice in answer.choices))


def _is_cut(answer: Answer) -> bool:
    return any(choice.finish_reason == _CUT for choice in answer.choices)
