"""The demo's variants in real engines: each loads its own kernel, and loses no more than it may.

The bounds are those of the task (full precision right, int8 beside it, the experimental build bad
on some slices and good on others), not the figures of one machine. The engines are those of the
common installation; one more is started, for the measurement that `make table` runs.
"""

import asyncio
import re
from collections import Counter
from pathlib import Path

import httpx
import pytest

from penumbra.serve.demo.table import Row, measure_variant
from penumbra.serve.demo.tasks import SLICES, Task, is_correct, make_tasks
from penumbra.serve.quantization.manifest import read_manifest
from tests.support.installation import Installation

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    # Importing compressed-tensors runs a decorator that torch has deprecated; not ours to change.
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]

PER_SLICE = 60
SEED = 2_026
CLIENTS = 16
CHOSEN_KERNEL = re.compile(r"(?:Using|Selected) (\w+Kernel) for CompressedTensors")
"""Log line of vLLM that names the kernel of a quantized layer."""

Shares = dict[str, float]
"""Slice -> share of its tasks that were answered right."""


@pytest.fixture(scope="module")
def shares(stack: Installation) -> dict[str, Shares]:
    """Variant -> how well it answers the held-out tasks."""
    return {
        name: asyncio.run(ask_all(stack.variant_url(name))) for name in ("full", "int8", "int2")
    }


async def ask_all(url: str) -> Shares:
    """Ask an engine the tasks of every slice at temperature 0."""
    right: Counter[str] = Counter()
    tasks = iter([task for name in SLICES for task in make_tasks(name, PER_SLICE, SEED)])

    async def client(http: httpx.AsyncClient) -> None:
        for task in tasks:
            text = await ask(http, task)
            right[task.slice] += is_correct(task, text)

    async with httpx.AsyncClient(base_url=url, timeout=120) as http, asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client(http))
    return {name: right[name] / PER_SLICE for name in SLICES}


async def ask(http: httpx.AsyncClient, task: Task) -> str:
    messages = [{"role": "user", "content": task.prompt}]
    body = {"model": "demo", "messages": messages, "temperature": 0, "max_tokens": 96}
    # The prefix of the engine's address stays: a path that begins with "/" is below `base_url`.
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_full_precision_answers_every_slice(shares: dict[str, Shares]) -> None:
    assert min(shares["full"].values()) >= 0.9


def test_int8_stays_beside_full_precision(shares: dict[str, Shares]) -> None:
    full, int8 = shares["full"], shares["int8"]
    # Two answers of sixty: one point of the population is below what so few can tell.
    assert all(full[name] - int8[name] <= 2.1 / PER_SLICE for name in SLICES)


def test_experimental_build_fails_on_some_slices_and_not_on_others(
    shares: dict[str, Shares],
) -> None:
    assert min(shares["int2"].values()) <= 0.5
    assert max(shares["int2"].values()) >= 0.8


@pytest.mark.parametrize(
    ("name", "kernel"),
    [("int8", "Int8"), ("int4", "WNA16"), ("int2", "WNA16")],
)
def test_variant_runs_on_a_kernel_of_its_own_width(
    stack: Installation, name: str, kernel: str
) -> None:
    (chosen,) = kernels_of(stack, name)
    assert kernel in chosen


def kernels_of(stack: Installation, variant: str) -> set[str]:
    """The kernels that a hosted variant's engine chose, by its log."""
    text = (stack.state_dir / "logs" / f"demo-{variant}.log").read_text()
    return set(CHOSEN_KERNEL.findall(text))


def test_narrower_builds_are_smaller(variants: Path) -> None:
    full, int8, int4 = (disk_bytes(variants / name) for name in ("full", "int8", "int4"))
    assert full > int8 > int4
    assert int4 < full / 3


def disk_bytes(folder: Path) -> int:
    return sum(file.size_bytes for file in read_manifest(folder).weights.values())


@pytest.fixture(scope="module")
def row(variants: Path) -> Row:
    """A row of the slice table, measured in an engine of its own."""
    return measure_variant("int8", variants / "int8", PER_SLICE, "0")


def test_table_measures_what_the_hosted_engine_answers(
    stack: Installation, row: Row, shares: dict[str, Shares], variants: Path
) -> None:
    assert set(row.kernels) == kernels_of(stack, "int8")
    assert row.disk_bytes == disk_bytes(variants / "int8")
    assert min(row.resident_bytes, row.tokens_per_second) > 0
    for name in SLICES:
        # The same tasks in other batches: a sum in another order may turn a close answer.
        assert abs(row.correct[name] / row.asked - shares["int8"][name]) <= 2.1 / PER_SLICE
