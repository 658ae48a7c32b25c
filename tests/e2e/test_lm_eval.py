"""lm-eval's `local-completions` scores a build through the gateway exactly as at its engine.

The tasks are local files made of the demo's: log-likelihoods of answers to choose from (`echo` with
`logprobs`), rolling log-likelihoods of whole texts, and generated answers.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from penumbra.serve.demo.tasks import Task, make_tasks
from tests.support.client_installs import python_clients
from tests.support.installation import Installation

SCRIPT = Path(__file__).parents[1] / "support" / "clients" / "lm_eval_scores.py"
BUILDS = ("full", "int8")
PER_SLICE = 8
SLICES = ("sort", "arithmetic")
TURN = "<|begin|><|user|>{}<|end|><|assistant|>"
SECONDS = 240.0
COMMON = {"dataset_path": "json", "test_split": "test", "target_delimiter": ""}
TASKS: dict[str, dict[str, Any]] = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "choices",
        "doc_to_target": 0,
        "metric_list": [{"metric": "acc"}],
    },
    "generation": {
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "answer",
        "generation_kwargs": {"until": ["<|end|>"], "max_gen_toks": 80},
        "metric_list": [{"metric": "exact_match"}],
    },
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
}
"""Name -> lm-eval's own description of the task."""

Scores = dict[str, list[dict[str, Any]]]
"""Task -> for each sample lm-eval's `resps` and metrics."""


def row(task: Task, among: list[Task]) -> dict[str, Any]:
    """A sample: the right answer is the first choice, answers to other questions are the rest."""
    others = [other.answer for other in among if other is not task][:2]
    return {
        "prompt": TURN.format(task.prompt),
        "answer": task.answer,
        "choices": [task.answer, *others],
        "text": f"{task.prompt} {task.answer}",
    }


def write_tasks(folder: Path) -> None:
    made = [make_tasks(name, PER_SLICE, seed=11) for name in SLICES]
    rows = [row(task, among) for among in made for task in among]
    data = folder / "test.jsonl"
    data.write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    files = {"dataset_kwargs": {"data_files": {"test": str(data)}}}
    for name, task in TASKS.items():
        text = yaml.safe_dump({"task": name, **COMMON, **files, **task})
        (folder / f"{name}.yaml").write_text(text)


@pytest.fixture(scope="module")
def scores(
    stack: Installation, variants: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Scores]:
    """(build, `engine` or `gateway`) -> its scores."""
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder)
    at = {
        (build, place): {"base_url": url, "header": header}
        for build in BUILDS
        for place, url, header in (
            ("engine", stack.variant_url(build), {}),
            ("gateway", stack.gateway_url, {"x-penumbra-variant": build}),
        )
    }
    asked = {
        "tasks": str(folder),
        "tokenizer": str(variants / "full"),
        "endpoints": list(at.values()),
    }
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [python_clients(), SCRIPT],
        input=json.dumps(asked),
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **offline},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(at, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("build", BUILDS)
def test_every_sample_scores_the_same_through_the_gateway(
    scores: dict[tuple[str, str], Scores], build: str, task: str
) -> None:
    found, wanted = scores[build, "gateway"][task], scores[build, "engine"][task]
    assert len(wanted) == PER_SLICE * len(SLICES)
    assert found == wanted


def test_scores_are_those_of_a_model_that_knows_the_answers(
    scores: dict[tuple[str, str], Scores],
) -> None:
    full = scores["full", "gateway"]
    right = [sample["metrics"]["acc"] for sample in full["choice"]]
    exact = [sample["metrics"]["exact_match"] for sample in full["generation"]]
    assert sum(right) >= 0.9 * len(right)
    assert sum(exact) >= 0.9 * len(exact)


@pytest.mark.parametrize("task", ["choice", "rolling"])
def test_two_builds_do_not_score_alike(scores: dict[tuple[str, str], Scores], task: str) -> None:
    # Else the comparisons above would hold whichever build answers.
    assert scores["full", "gateway"][task] != scores["int8", "gateway"][task]
