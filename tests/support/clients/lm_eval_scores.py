"""Prints the scores that lm-eval's `local-completions` gives every sample of a folder's tasks.

It runs in the environment of `requirements/clients.txt`. Standard input has `{"tasks": FOLDER,
"tokenizer": FOLDER, "endpoints": [{"base_url", "header"}, ...]}`; standard output gets a list with,
for each endpoint, the samples of each task: `{task: [{"resps", "metrics"}, ...]}`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

MAX_LENGTH = 1024
"""Tokens that the demo's engines take."""


def main() -> None:
    # lm-eval prints tables and progress: the scores get a descriptor of their own.
    scores = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked = json.load(sys.stdin)
    found = [evaluate(asked["tasks"], asked["tokenizer"], **each) for each in asked["endpoints"]]
    json.dump(found, scores)
    scores.close()


def evaluate(tasks: str, tokenizer: str, base_url: str, header: dict[str, str]) -> dict[str, Any]:
    import lm_eval  # seconds
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model="local-completions",
        model_args={
            "model": "demo",
            "base_url": f"{base_url}/v1/completions",
            "header": header,
            "tokenizer": tokenizer,
            "max_length": MAX_LENGTH,
            "max_retries": 1,
        },
        tasks=sorted(path.stem for path in Path(tasks).glob("*.yaml")),
        task_manager=TaskManager(include_path=tasks, include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    return {
        name: [scored(sample) for sample in found["samples"][name]] for name in found["samples"]
    }


def scored(sample: dict[str, Any]) -> dict[str, Any]:
    metrics = {name: float(sample[name]) for name in sample["metrics"] if name != "bits_per_byte"}
    return {"resps": sample["resps"], "metrics": metrics}


if __name__ == "__main__":
    main()
