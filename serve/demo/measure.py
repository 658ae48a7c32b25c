"""Measures one variant through vLLM, in a process of its own.

One process per variant, so that resident memory and thread binding are that variant's alone. The
last line of standard output is the result as JSON.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from penumbra.serve.demo import tasks

PER_SLICE: Final = 200
SEED: Final = 2_026
_MAX_ANSWER_TOKENS: Final = 96
_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # In one process its resident size is the engine's; nothing else is allowed to be pickled.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


def measure(folder: Path, per_slice: int) -> dict[str, Any]:
    """Loads a variant and asks it the held-out tasks of every slice at temperature 0.

    Args:
        folder: The variant's folder.
        per_slice: Tasks of each slice.

    Returns:
        `correct` by slice, `output_tokens`, `seconds`, `resident_bytes` (of the process, at most)
        and `kernels`.
    """
    from vllm import LLM, SamplingParams

    engine = LLM(
        str(folder),
        max_model_len=1024,
        max_num_seqs=32,
        enforce_eager=True,
        gpu_memory_utilization=0.1,
        # Prompts share no prefix worth keeping, and a cached one would flatter the speed.
        enable_prefix_caching=False,
        seed=0,
    )
    sampling = SamplingParams(temperature=0.0, max_tokens=_MAX_ANSWER_TOKENS)
    warm_up = tasks.make_tasks(tasks.SLICES[0], 8, SEED + 1)
    engine.chat(_conversations(warm_up), sampling, use_tqdm=False)
    correct: dict[str, int] = {}
    output_tokens = 0
    seconds = 0.0
    for name in tasks.SLICES:
        asked = tasks.make_tasks(name, per_slice, SEED)
        started = time.perf_counter()
        outputs = engine.chat(_conversations(asked), sampling, use_tqdm=False)
        seconds += time.perf_counter() - started
        answers = [output.outputs[0] for output in outputs]
        output_tokens += sum(len(answer.token_ids) for answer in answers)
        correct[name] = sum(
            tasks.is_correct(task, answer.text) for task, answer in zip(asked, answers, strict=True)
        )
    return {
        "correct": correct,
        "output_tokens": output_tokens,
        "seconds": round(seconds, 3),
        # Linux counts the peak in KiB.
        "resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "kernels": _kernels(engine),
    }


def _conversations(asked: Sequence[tasks.Task]) -> list[Any]:
    return [[{"role": "user", "content": task.prompt}] for task in asked]


def _kernels(engine: Any) -> list[str]:
    """The kernels that the engine chose for its quantized linear layers."""

    def look(model: Any) -> list[str]:
        schemes = (getattr(module, "scheme", None) for module in model.modules())
        kernels = (getattr(scheme, "kernel", None) for scheme in schemes)
        return sorted({type(kernel).__name__ for kernel in kernels if kernel is not None})

    chosen: list[str] = engine.apply_model(look)[0]
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-slice", type=int, default=PER_SLICE)
    parser.add_argument("--cores", default="0", help="cores the engine's threads are bound to")
    options = parser.parse_args(arguments)
    # Read once, when vLLM is imported; without binding, the engine's threads fight for the cores.
    os.environ.update(_ENVIRONMENT, VLLM_CPU_OMP_THREADS_BIND=options.cores)
    result = measure(options.folder, options.per_slice)
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
