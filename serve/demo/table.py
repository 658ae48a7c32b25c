"""Measures every demo variant and prints the slice table: `python -m penumbra.serve.demo.table`.

Markdown goes to standard output, the raw figures to `--json FILE`. Every figure comes from a real
engine run, one variant after the other, each in its own process.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from penumbra.serve.demo import tasks
from penumbra.serve.demo.measure import PER_SLICE
from penumbra.serve.demo.prepare import VARIANTS, prepare
from penumbra.serve.quantization.errors import QuantizationError
from penumbra.serve.quantization.manifest import read_manifest

_Z_95: Final = 1.959964
_TIMEOUT_SECONDS: Final = 600.0


class MeasurementFailed(Exception):
    """A variant's engine did not give a result."""


@dataclass(frozen=True, slots=True)
class Row:
    """One variant, as measured.

    Attributes:
        variant: Its name.
        scheme: From its manifest.
        disk_bytes: Weight files on disk. Kernels repack the weights into memory of their own, which
            the engine does not count, so what they take there is not told apart.
        resident_bytes: The engine's process, at most; most of it is the runtime, not the model.
        tokens_per_second: Output tokens over the time of all requests, up to 32 at once.
        kernels: Of the quantized linear layers; empty where the dtype's own product is used.
        asked: Tasks per slice.
        correct: Exact matches, by slice.
    """

    variant: str
    scheme: str
    disk_bytes: int
    resident_bytes: int
    tokens_per_second: float
    kernels: tuple[str, ...]
    asked: int
    correct: dict[str, int]


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927); (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    square = _Z_95**2
    scale = 1 + square / trials
    centre = share + square / (2 * trials)
    reach = _Z_95 * math.sqrt(share * (1 - share) / trials + square / (4 * trials**2))
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


def measure_variant(name: str, folder: Path, per_slice: int, cores: str) -> Row:
    """Measures one variant in a process of its own.

    Raises:
        MeasurementFailed: The process failed; the message ends with what it said last.
    """
    command = [sys.executable, "-m", "penumbra.serve.demo.measure", str(folder)]
    command += ["--per-slice", str(per_slice), "--cores", cores]
    ran = subprocess.run(  # noqa: S603 - this interpreter, and arguments that no shell reads
        command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
    )
    if ran.returncode:
        raise MeasurementFailed(f"{name}: exit status {ran.returncode}\n{ran.stderr[-2_000:]}")
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    manifest = read_manifest(folder)
    return Row(
        variant=name,
        scheme=manifest.scheme,
        disk_bytes=sum(file.size_bytes for file in manifest.weights.values()),
        resident_bytes=result["resident_bytes"],
        tokens_per_second=round(result["output_tokens"] / result["seconds"], 1),
        kernels=tuple(result["kernels"]),
        asked=per_slice,
        correct=result["correct"],
    )


def markdown(rows: Sequence[Row]) -> str:
    """The two tables: what a variant costs, and what it answers."""
    costs = [
        [
            row.variant,
            row.scheme,
            ", ".join(row.kernels) or "dtype's own",
            f"{row.disk_bytes / 1e6:.2f}",
            f"{row.resident_bytes / 1e9:.2f}",
            f"{row.tokens_per_second:.0f}",
        ]
        for row in rows
    ]
    answers = [
        [name, *(_cell(row.correct[name], row.asked) for row in rows)] for name in tasks.SLICES
    ]
    heads = [
        "variant",
        "scheme",
        "kernel",
        "weights on disk, MB",
        "engine process at most, GB",
        "output tokens/s",
    ]
    names = [row.variant for row in rows]
    return f"{_grid(heads, costs)}\n\n{_grid(['exact match, %', *names], answers)}\n"


def _cell(correct: int, asked: int) -> str:
    low, high = wilson(correct, asked)
    return f"{100 * correct / max(1, asked):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measure_all(
    folder: Path, per_slice: int, cores: str, report: Callable[[str], None]
) -> list[Row]:
    """Prepares the variants under `folder` and measures one after the other."""
    prepare(folder, report)
    rows = []
    for name in VARIANTS:
        report(f"{name}: measuring")
        rows.append(measure_variant(name, folder / name, per_slice, cores))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants-dir", type=Path, help="kept there; temporary otherwise")
    parser.add_argument("--per-slice", type=int, default=PER_SLICE)
    parser.add_argument("--cores", default="0", help="cores each engine's threads are bound to")
    parser.add_argument("--json", type=Path, help="file for the raw figures")
    options = parser.parse_args(arguments)

    def report(line: str) -> None:
        sys.stderr.write(line + "\n")

    try:
        with tempfile.TemporaryDirectory(prefix="penumbra-variants-") as spare:
            folder = options.variants_dir or Path(spare)
            rows = measure_all(folder, options.per_slice, options.cores, report)
    except (MeasurementFailed, QuantizationError) as error:
        report(f"error: {error}")
        return 1
    if options.json:
        figures = [asdict(row) for row in rows]
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
