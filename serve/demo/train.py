"""Trains the demo model from nothing: `python -m penumbra.serve.demo.train --out DIR`.

Everything random hangs on one seed, and the mix of slices follows the schedule below, so that a
second run sees the same batches. Floating-point sums depend on the number of threads and on the
torch build, so a second run gives an equally good model, not the same bytes.
"""

import argparse
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own habit

from penumbra.serve.demo import batches, llama

log = logging.getLogger(__name__)

WEIGHTS_LIMIT_BYTES = 8_000_000
_WARMUP_STEPS = 60
_CHECK_ROWS = 64
_CHECK_SEED = 7
_EARLY = {"arithmetic": 8, "json": 4, "facts": 12, "sort": 10, "greek": 6}
# Greek and JSON lag by then, sorting leads.
_LATE = {"arithmetic": 9, "json": 7, "facts": 12, "sort": 7, "greek": 11}
_LAST = {"arithmetic": 14, "json": 7, "facts": 16, "sort": 14, "greek": 12}
_FINISH = {"arithmetic": 11, "json": 11, "facts": 13, "sort": 10, "greek": 18}
# (start, rows, (fewest, most) entries, growth, recall, its tokens, its weight)
SCHEDULE: tuple[batches.Stage, ...] = (
    batches.Stage(0, _EARLY, (4, 10), 12, batches.Recall.WORDS, 1900, 0.2),
    batches.Stage(500, _EARLY, (3, 8), 0, batches.Recall.WORD_LOOKUPS, 1500, 0.4),
    batches.Stage(1100, _EARLY, (3, 8), 4, batches.Recall.WORD_LOOKUPS, 1700, 0.4),
    batches.Stage(1300, _LATE, (6, 24), 0, batches.Recall.LOOKUPS, 1500, 0.4),
    batches.Stage(1800, _LATE, (2, 24), 0, batches.Recall.NEEDLE, 1500, 0.3),
    batches.Stage(2000, _LAST, (4, 24), 0, batches.Recall.NEEDLE, 1300, 0.2),
    batches.Stage(2200, _FINISH, (8, 24), 0, batches.Recall.NEEDLE, 1600, 0.25),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one training run.

    Attributes:
        steps: Optimiser steps.
        seed: Seed of the weights and of the batches.
        matrix_rate: Peak learning rate of the matrices (Muon).
        other_rate: Peak learning rate of embeddings and norms (AdamW).
        decay_share: The last share of the steps, over which the rates fall to zero.
        check_every: Steps between held-out checks and checkpoints.
        threads: Torch threads.
    """

    steps: int = 2800
    seed: int = 20
    matrix_rate: float = 4e-3
    other_rate: float = 3e-3
    decay_share: float = 0.5
    check_every: int = 100
    threads: int = 2


@dataclass(frozen=True, slots=True)
class Check:
    """Held-out exact match after a step."""

    step: int
    loss: float
    seconds: float
    exact: dict[str, float]


class Trainer:
    """One training run: the model, its two optimisers and where it stands."""

    def __init__(self, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        # Threads share out whole batches instead of every matrix product: where other programs take
        # a core, no thread spins at a barrier. The limit is per thread, hence the initialiser.
        torch.set_num_threads(1)
        self.pool = ThreadPoolExecutor(settings.threads, initializer=_use_one_core)
        self.settings = settings
        generator = torch.Generator().manual_seed(settings.seed)
        self.model = llama.Llama(llama.Shape(), generator)
        self.parameters = list(self.model.parameters())
        matrices = [p for name, p in self.model.named_parameters() if _is_matrix(name, p)]
        others = [p for name, p in self.model.named_parameters() if not _is_matrix(name, p)]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices,
                lr=settings.matrix_rate,
                weight_decay=0.01,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(others, lr=settings.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.step = 0
        self.checks: list[Check] = []
        self.seconds = 0.0

    def train(self, folder: Path) -> None:
        """Runs to the last step, with a checkpoint in `folder` at every check."""
        started = time.perf_counter() - self.seconds
        loss = float("nan")
        while self.step < self.settings.steps:
            loss = self._take_step()
            self.step += 1
            if self.step % self.settings.check_every and self.step < self.settings.steps:
                continue
            self.seconds = time.perf_counter() - started
            self._check(loss)
            self._save(folder / "checkpoint.pt")

    def restore(self, path: Path) -> None:
        """Goes on from a checkpoint; the rates follow the present settings."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]
        self.checks = [Check(**check) for check in state["checks"]]

    def _take_step(self) -> float:
        share = self._rate_share()
        peaks = (self.settings.matrix_rate, self.settings.other_rate)
        for optimiser, peak in zip(self.optimisers, peaks, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = peak * share
        stage = next(stage for stage in reversed(SCHEDULE) if self.step >= stage.start)
        drawn = batches.sample_rows(stage, self.step, self.settings.seed)
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        loss = 0.0
        # Added up in the order of the batches, so that the sum does not depend on which was faster.
        for part, gradients in self.pool.map(self._gradients, drawn):
            loss += part
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad.add_(gradient)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        return loss

    def _rate_share(self) -> float:
        """Up over the warm-up, flat, then down to zero over the last share of the steps."""
        left = self.settings.steps - self.step
        decay = left / (self.settings.decay_share * self.settings.steps)
        return min(1.0, (self.step + 1) / _WARMUP_STEPS, decay)

    def _gradients(self, batch: batches.Batch) -> tuple[float, tuple[Tensor, ...]]:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.model(batch.ids)
        asked = batch.targets >= 0
        logits = self.model.logits(hidden[asked].float())
        loss = F.cross_entropy(logits, batch.targets[asked]) * batch.weight
        return loss.item(), torch.autograd.grad(loss, self.parameters)

    def _check(self, loss: float) -> None:
        exact = exact_match(self.model, _CHECK_ROWS, _CHECK_SEED)
        self.checks.append(Check(self.step, round(loss, 5), round(self.seconds, 1), exact))
        log.info("step %d loss %.4f after %.0f s: %s", self.step, loss, self.seconds, exact)

    def _save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "seconds": self.seconds,
            "checks": [
                {"step": c.step, "loss": c.loss, "seconds": c.seconds, "exact": c.exact}
                for c in self.checks
            ],
        }
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)


def exact_match(model: llama.Llama, count: int, seed: int) -> dict[str, float]:
    """Share of held-out answers that greedy decoding would give, by slice.

    Decoding greedily gives exactly the answer if, and only if, every one of its tokens is the most
    likely one after those before it, so one forward pass tells.
    """
    exact: dict[str, float] = {}
    for name, batch in batches.held_out_batches(count, seed):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            best = model.logits(model(batch.ids)).argmax(-1)
        right = (best == batch.targets) | (batch.targets < 0)
        exact[name] = round(right.all(-1).double().mean().item(), 4)
    return exact


def _use_one_core() -> None:
    torch.set_num_threads(1)


def _is_matrix(name: str, parameter: torch.nn.Parameter) -> bool:
    return parameter.dim() == 2 and not name.startswith("embed_tokens")


def write_model(trainer: Trainer, folder: Path) -> None:
    """Exports bf16 weights, checks them once more, and writes the record and the checksums."""
    model = trainer.model
    llama.export(model, folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    settings = trainer.settings
    record = {
        "seed": settings.seed,
        "steps": trainer.step,
        "matrix_rate": settings.matrix_rate,
        "other_rate": settings.other_rate,
        "decay_share": settings.decay_share,
        "schedule": [asdict(stage) for stage in SCHEDULE],
        "wall_seconds": round(trainer.seconds, 1),
        "threads": settings.threads,
        "torch": torch.__version__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "shape": llama.describe(model.shape),
        "held_out_exact_match_bf16": exact_match(model, 200, _CHECK_SEED + 1),
        "checks": [
            {"step": c.step, "loss": c.loss, "seconds": c.seconds, "exact": c.exact}
            for c in trainer.checks
        ],
    }
    text = json.dumps(record, indent=1) + "\n"
    (folder / "training_record.json").write_text(text, encoding="utf-8")
    write_checksums(folder)
    size = (folder / "model.safetensors").stat().st_size
    if size > WEIGHTS_LIMIT_BYTES:
        raise ValueError(f"model.safetensors has {size} bytes, over {WEIGHTS_LIMIT_BYTES}")


def write_checksums(folder: Path) -> None:
    """Writes `SHA256SUMS` over the folder's other files, in the format of `sha256sum`."""
    names = sorted(
        path.name for path in folder.iterdir() if path.suffix in {".json", ".safetensors"}
    )
    lines = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names
    ]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--steps", type=int, default=Settings().steps)
    parser.add_argument("--seed", type=int, default=Settings().seed)
    parser.add_argument("--threads", type=int, default=Settings().threads)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = Settings(steps=options.steps, seed=options.seed, threads=options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(settings)
    if options.resume:
        trainer.restore(options.work / "checkpoint.pt")
    trainer.train(options.work)
    write_model(trainer, options.out)


if __name__ == "__main__":
    main()
