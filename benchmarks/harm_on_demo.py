"""Measures how many of a build's mistakes the harm signals see, on a demo variant.

Asks a demo variant held-out tasks, greedily, and holds its answers against the right ones as the
comparator would hold a candidate's against the baseline's; and scores the right answers through the
variant and through the full build for displacement. Runs on transformers, without an engine. Needs
the variants that `make table` or `make demo` makes.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from penumbra.monitoring.signals.answer import CHAT_PATH, Choice
from penumbra.monitoring.signals.displacement import Displacement, compare
from penumbra.monitoring.signals.harm import Answer, expectations, judge
from penumbra.serve.demo.tasks import SLICES, Task, is_correct, make_tasks

MOST_TOKENS = 96
SEED = 3


@dataclass
class Build:
    """One variant, loaded."""

    tokenizer: Any
    model: Any

    @classmethod
    def load(cls, folder: Path) -> "Build":
        """Load a variant from its folder."""
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.eval()
        return cls(AutoTokenizer.from_pretrained(folder), model)

    def prompt(self, task: Task) -> Any:
        """Token ids of a task as the build is asked it, one row."""
        turns = [{"role": "user", "content": task.prompt}]
        found = self.tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        return found["input_ids"]

    def answer(self, task: Task) -> Answer:
        """The build's greedy answers."""
        prompt = self.prompt(task)
        with torch.no_grad():
            ids = self.model.generate(prompt, max_new_tokens=MOST_TOKENS, do_sample=False)
        said = ids[0, prompt.shape[1] :]
        reason = "length" if len(said) >= MOST_TOKENS else "stop"
        text = self.tokenizer.decode(said, skip_special_tokens=True)
        return Answer((Choice(text=text, finish_reason=reason),))

    def score(self, task: Task) -> tuple[list[float], list[int]]:
        """Log-probability of each token of the right answer, and the greedy choice instead."""
        prompt = self.prompt(task)
        answer = self.tokenizer(task.answer, add_special_tokens=False, return_tensors="pt")
        wanted = answer["input_ids"]
        with torch.no_grad():
            logits = self.model(torch.cat([prompt, wanted], dim=1)).logits[0]
        rows = logits[prompt.shape[1] - 1 : -1].float().log_softmax(dim=-1)
        return rows.gather(1, wanted[0, :, None])[:, 0].tolist(), rows.argmax(dim=-1).tolist()


@dataclass
class Seen:
    """Counts of one slice."""

    wrong: int = 0
    wrong_and_harm: int = 0
    right_and_harm: int = 0
    displacements: list[float] = field(default_factory=list)


def look(full: Build, candidate: Build, tasks: list[Task]) -> Seen:
    """Hold a candidate's answers to some tasks against the right ones."""
    seen = Seen()
    for task in tasks:
        turns = [{"role": "user", "content": task.prompt}]
        body = json.dumps({"messages": turns, "max_tokens": MOST_TOKENS}).encode()
        right = Answer((Choice(text=task.answer, finish_reason="stop"),))
        answer = candidate.answer(task)
        is_harm = judge(expectations(CHAT_PATH, body), answer, right).harm == 1
        if is_correct(task, answer.choices[0].text):
            seen.right_and_harm += is_harm
        else:
            seen.wrong += 1
            seen.wrong_and_harm += is_harm
        found = _displacement(full, candidate, task)
        if found.displacement is not None:
            seen.displacements.append(found.displacement)
    return seen


def _displacement(full: Build, candidate: Build, task: Task) -> Displacement:
    (own, own_top), (other, other_top) = full.score(task), candidate.score(task)
    return compare(own, other, own_top, other_top)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants-dir", type=Path, default=Path("var/demo/variants"))
    parser.add_argument("--variant", default="int2")
    parser.add_argument("--per-slice", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    full = Build.load(options.variants_dir / "full")
    candidate = Build.load(options.variants_dir / options.variant)
    print("| slice | asked | wrong | of these harm | right, yet harm | mean displacement |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in SLICES:
        seen = look(full, candidate, make_tasks(name, options.per_slice, SEED))
        mean = sum(seen.displacements) / max(1, len(seen.displacements))
        print(
            f"| {name} | {options.per_slice} | {seen.wrong} | {seen.wrong_and_harm} "
            f"| {seen.right_and_harm} | {mean:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
