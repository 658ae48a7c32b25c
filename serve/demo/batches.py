"""Seeded training batches: short tasks padded by slice, and recall rows that ask more than once."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from serve.demo import tasks, tokens

_IGNORED = -100
# (slices of about one length, their share of the loss)
_SHORT_GROUPS = ((("arithmetic", "sort"), 0.4), (("json", "facts", "greek"), 0.4))
_RECALL_WEIGHT = 0.2
_QUESTIONS_A_RECALL_ROW = 8
_RECALL_TOKENS = 1_900
_RECALL_GROWS_UNTIL = 500


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one length.

    Attributes:
        ids: Token ids, [rows, length].
        targets: What each position has to predict, `-100` where it is not asked, [rows, length].
        weight: The share of this batch in the step's loss.
    """

    ids: Tensor
    targets: Tensor
    weight: float


def sample_rows(mix: dict[str, int], step: int, seed: int) -> list[Batch]:
    """The batches of one optimiser step.

    Args:
        mix: Rows a step of each short slice; recall is sized in tokens.
        step: The step, from 0; with `seed` it decides everything.
        seed: The training seed.
    """
    batches: list[Batch] = []
    task_seed = seed * 1_000_003 + step
    for group, weight in _SHORT_GROUPS:
        drawn = [
            task
            for name in group
            for task in tasks.make_tasks(name, mix[name], task_seed, held_out=False)
        ]
        batches.append(as_batch([[(task.prompt, task.answer)] for task in drawn], weight))
    rng = random.Random(task_seed)  # noqa: S311 - reproducible, not secret
    most = 10 + 60 * min(step, _RECALL_GROWS_UNTIL) // _RECALL_GROWS_UNTIL
    entry_count = rng.randint(max(4, most - 40), most)
    length = 10 + 9 * entry_count + 27 * _QUESTIONS_A_RECALL_ROW
    rows = [_recall_row(rng, entry_count) for _ in range(max(2, _RECALL_TOKENS // length))]
    batches.append(as_batch(rows, _RECALL_WEIGHT))
    return batches


def as_batch(conversations: Sequence[Sequence[tuple[str, str]]], weight: float) -> Batch:
    """Pads conversations of (prompt, answer) turns into one batch asked for answers only."""
    rows = [_as_row(turns) for turns in conversations]
    length = max(len(ids) for ids, _ in rows) - 1
    ids = torch.full((len(rows), length), tokens.PAD)
    targets = torch.full((len(rows), length), _IGNORED)
    for index, (row, asked) in enumerate(rows):
        width = len(row) - 1
        ids[index, :width] = torch.tensor(row[:-1])
        following = torch.tensor(row[1:])
        targets[index, :width] = following.where(torch.tensor(asked[1:]), _IGNORED)
    return Batch(ids, targets, weight)


def held_out_batches(count: int, seed: int) -> Iterator[tuple[str, Batch]]:
    """One batch of `count` held-out tasks of every slice."""
    for name in tasks.SLICES:
        drawn = tasks.make_tasks(name, count, seed)
        yield name, as_batch([[(task.prompt, task.answer)] for task in drawn], 1.0)


def _as_row(turns: Sequence[tuple[str, str]]) -> tuple[list[int], list[bool]]:
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


def _recall_row(rng: random.Random, entry_count: int) -> list[tuple[str, str]]:
    """A list and several questions on it: one reading of the list teaches more than one lookup."""
    entries = tasks.recall_entries(rng, entry_count)
    keys = rng.choices(list(entries), k=_QUESTIONS_A_RECALL_ROW)
    prompts = [tasks.recall_prompt(entries, keys[0])]
    prompts += [f"Recall: Q: {key}?" for key in keys[1:]]
    return [(prompt, f"{key} {entries[key]}") for prompt, key in zip(prompts, keys, strict=True)]
