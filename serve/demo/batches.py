"""Seeded training batches: short tasks padded by slice, and recall rows that ask more than once."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from penumbra.serve.demo import tasks, tokens

_Row = tuple[list[int], list[bool]]

_IGNORED = -100
# (slices of about one length, their share of the loss)
_SHORT_GROUPS = ((("arithmetic", "sort"), 0.4), (("json", "facts", "greek"), 0.4))
_QUESTIONS_A_CONVERSATION = 8
_MOST_LOOKUPS_A_ROW = 30
_MOST_ENTRIES = 70


class Recall(StrEnum):
    """Kinds of recall rows in training.

    All but `NEEDLE`, which is the slice's own task, look keys up in a list. A model of this size
    did not learn that in time; the stages stay because the committed weights went through them.
    """

    WORDS = "words"
    WORD_LOOKUPS = "word-lookups"
    LOOKUPS = "lookups"
    NEEDLE = "needle"


@dataclass(frozen=True, slots=True)
class Stage:
    """Make-up of the training steps from `start` on.

    Attributes:
        start: First step.
        rows: Rows a step of each short slice.
        entries: Fewest and most entries of a recall list.
        growth: Entries by which the most grows, each 100 steps, up to 70.
        recall: Kind of the recall rows.
        recall_tokens: About how many tokens of recall rows a step has.
        recall_weight: Share of recall in the loss.
    """

    start: int
    rows: dict[str, int]
    entries: tuple[int, int]
    growth: int
    recall: Recall
    recall_tokens: int
    recall_weight: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one length.

    Attributes:
        ids: Token ids, [rows, length].
        targets: Token to predict in each position, `-100` where none is asked, [rows, length].
        weight: The share of this batch in the step's loss.
    """

    ids: Tensor
    targets: Tensor
    weight: float


def sample_rows(stage: Stage, step: int, seed: int) -> list[Batch]:
    """The batches of one optimiser step.

    Args:
        stage: The stage that the step is in.
        step: The step, from 0; with `seed` it decides everything.
        seed: The training seed.
    """
    batches: list[Batch] = []
    task_seed = seed * 1_000_003 + step
    for group, weight in _SHORT_GROUPS:
        drawn = [
            task
            for name in group
            for task in tasks.make_tasks(name, stage.rows[name], task_seed, held_out=False)
        ]
        batches.append(as_batch([[(task.prompt, task.answer)] for task in drawn], weight))
    rng = random.Random(task_seed)  # noqa: S311 - reproducible, not secret
    batches.append(_recall_batch(stage, step, rng))
    return batches


def as_batch(conversations: Sequence[Sequence[tuple[str, str]]], weight: float) -> Batch:
    """Pads conversations of (prompt, answer) turns into one batch asked for answers only."""
    return _pad([_as_row(turns) for turns in conversations], weight)


def held_out_batches(count: int, seed: int) -> Iterator[tuple[str, Batch]]:
    """One batch of `count` held-out tasks of every slice."""
    for name in tasks.SLICES:
        drawn = tasks.make_tasks(name, count, seed)
        yield name, as_batch([[(task.prompt, task.answer)] for task in drawn], 1.0)


def _as_row(turns: Sequence[tuple[str, str]]) -> _Row:
    ids = [tokens.BEGIN]
    asked = [False]
    for prompt, answer in turns:
        for part, is_asked in (
            (tokens.encode_turn(prompt), False),
            (tokens.encode_answer(answer), True),
        ):
            ids += part
            asked += [is_asked] * len(part)
    return ids, asked


def _pad(rows: Sequence[_Row], weight: float) -> Batch:
    length = max(len(ids) for ids, _ in rows) - 1
    ids = torch.full((len(rows), length), tokens.PAD)
    targets = torch.full((len(rows), length), _IGNORED)
    for index, (row, asked) in enumerate(rows):
        width = len(row) - 1
        ids[index, :width] = torch.tensor(row[:-1])
        following = torch.tensor(row[1:])
        targets[index, :width] = following.where(torch.tensor(asked[1:]), _IGNORED)
    return Batch(ids, targets, weight)


def _recall_batch(stage: Stage, step: int, rng: random.Random) -> Batch:
    fewest, most = stage.entries
    most = min(most + stage.growth * (step - stage.start) // 100, _MOST_ENTRIES)
    # Short lists stay in the mix, but not so many that long ones are rare.
    entry_count = rng.randint(max(fewest, most - 40), most)
    make, length = _recall_maker(stage.recall, entry_count)
    count = max(2, stage.recall_tokens // length)
    return _pad([make(rng, entry_count) for _ in range(count)], stage.recall_weight)


def _recall_maker(
    recall: Recall, entry_count: int
) -> tuple[Callable[[random.Random, int], _Row], int]:
    """The function that makes a row, and about how many tokens the row has."""
    match recall:
        case Recall.WORDS:
            return _word_questions, 10 + 9 * entry_count + 27 * _QUESTIONS_A_CONVERSATION
        case Recall.WORD_LOOKUPS:
            looked_up = min(entry_count, _MOST_LOOKUPS_A_ROW)
            return _word_lookups, 25 + 9 * (entry_count + looked_up)
        case Recall.LOOKUPS:
            return _lookups, 20 + 26 * entry_count
        case Recall.NEEDLE:
            return _needle, 80 + 20 * entry_count


def _needle(rng: random.Random, entry_count: int) -> _Row:
    task = tasks.recall_task(rng, entry_count)
    while tasks.is_held_out(task.prompt):
        task = tasks.recall_task(rng, entry_count)
    return _as_row([(task.prompt, task.answer)])


def _lookups(rng: random.Random, entry_count: int) -> _Row:
    """A list, one question, and an answer that goes on to look up the other keys, in random order.

    Later keys are given, not asked for: what is trained is finding the value, two dozen times for
    one reading of the list. Nothing but the end is ever asked for after a value.
    """
    keys = rng.sample("ABCDEFGHIJKLMNOPSTUVWXYZ", entry_count)
    entries = {key: str(rng.randint(100, 999)) for key in keys}
    listed = ", ".join(f"parcel number {name}{value}" for name, value in entries.items())
    keys = rng.sample(keys, entry_count)
    prompt = f"Recall: {listed}. Q: {keys[0]}?"
    return _looked_up(prompt, [(key, entries[key]) for key in keys])


def _looked_up(prompt: str, found: Sequence[tuple[str, str]]) -> _Row:
    ids = [tokens.BEGIN, *tokens.encode_turn(prompt)]
    asked = [False] * len(ids)
    for index, (key, value) in enumerate(found):
        separator = ", " if index else ""
        ids += f"{separator}{key}{value}".encode()
        asked += [False] * len(separator) + [index == 0] * len(key) + [True] * len(value)
    return [*ids, tokens.END], [*asked, True]


def _word_entries(rng: random.Random, count: int) -> dict[str, str]:
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    entries: dict[str, str] = {}
    while len(entries) < count:
        key = rng.choice(consonants) + rng.choice(vowels) + rng.choice(consonants)
        entries[key] = str(rng.randint(100, 999))
    return entries


def _word_prompt(entries: dict[str, str], key: str) -> str:
    listed = ", ".join(f"{name} {value}" for name, value in entries.items())
    return f"Recall: {listed}. Q: {key}?"


def _word_lookups(rng: random.Random, entry_count: int) -> _Row:
    entries = _word_entries(rng, entry_count)
    keys = rng.sample(list(entries), min(entry_count, _MOST_LOOKUPS_A_ROW))
    found = [(f"{key} ", entries[key]) for key in keys]
    return _looked_up(_word_prompt(entries, keys[0]), found)


def _word_questions(rng: random.Random, entry_count: int) -> _Row:
    entries = _word_entries(rng, entry_count)
    keys = rng.choices(list(entries), k=_QUESTIONS_A_CONVERSATION)
    prompts = [_word_prompt(entries, keys[0]), *(f"Recall: Q: {key}?" for key in keys[1:])]
    turns = [(prompt, f"{key} {entries[key]}") for prompt, key in zip(prompts, keys, strict=True)]
    return _as_row(turns)
