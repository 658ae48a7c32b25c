"""Rollouts on real engines, with enough pairs for a conclusion: `make bench-rollout`.

Starts the demo's builds and a twin of the baseline (the same weights, an engine of its own) through
`penumbra up`, and compares fresh prompts of all six slices, as the demo's clients ask them:

- the twin, for at least 2,000 pairs: it must not be rolled back;
- int8, until a slice is proven or 2,000 pairs: it must not be rolled back;
- int2, again and again with other prompts: how many mirrored requests until it is rolled back, and
  which slices are named.

With `--engine-changes` the candidates are other engines in place of other weights: fp8 in the KV
cache, no prefix cache, no chunked prefill, and int4 weights with fp8 in the cache. Each is compared
until every slice is proven or there are `--pairs` pairs; the table names the facts in which it
differs from the baseline.

Tolerances are those of deployments/examples/rollouts. Writes Markdown to standard output.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from penumbra.deployments.config.loader import load
from penumbra.deployments.config.rollout_loader import load_rollout
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.monitoring.build_facts import differences
from penumbra.serve.demo.prepare import prepare
from penumbra.serve.demo.tasks import SLICES
from penumbra.serve.demo.traffic import Traffic, TrafficCounts
from penumbra.serve.supervisor.folder import StateFolder

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "deployments" / "examples"
FOLDER = ROOT / "benchmarks" / ".build" / "real_rollout"
TWIN = "twin"
CLIENTS = 10
POLL_SECONDS = 0.25
RARE = "facts"
RARE_TOLERANCE = 0.01

ENGINE_CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "fp8-kv": ("full", {"kv_cache_dtype": "fp8"}),
    "no-prefix-cache": ("full", {"enable_prefix_caching": False}),
    "no-chunked-prefill": (
        "full",
        {"enable_chunked_prefill": False, "max_num_batched_tokens": 2048},
    ),
    "int4-fp8-kv": ("int4", {"kv_cache_dtype": "fp8"}),
}
"""Variant -> the weights it has, and the arguments in which its engine differs."""

View = dict[str, Any]


class Admin:
    """Client of the admin API."""

    def __init__(self, spec: PenumbraSpec) -> None:
        token = StateFolder(spec.state_dir).tokens({})["PENUMBRA_ADMIN_TOKEN"]
        headers = {"authorization": f"Bearer {token}"}
        self._path = "/admin/v1/rollouts"
        self._http = httpx.AsyncClient(base_url=spec.control_url, headers=headers, timeout=60)

    async def apply(self, spec: RolloutSpec) -> None:
        """Start a rollout."""
        body = {"spec": spec.model_dump(mode="json"), "reason": "benchmark"}
        (await self._http.put(self._path, json=body)).raise_for_status()

    async def do(self, verb: str, candidate: str) -> None:
        """Act on a rollout: `end`, `rearm`, ..."""
        answer = await self._http.post(
            f"{self._path}/{candidate}/{verb}",
            params={"model": "demo"},
            json={"reason": "benchmark"},
        )
        answer.raise_for_status()

    async def view(self, candidate: str, part: str = "") -> View:
        """View of a rollout, or a part of it."""
        answer = await self._http.get(f"{self._path}/{candidate}{part}", params={"model": "demo"})
        view: View = answer.raise_for_status().json()
        return view


async def follow(
    admin: Admin, traffic: Traffic, candidate: str, until: Callable[[View], bool], seconds: float
) -> tuple[View, TrafficCounts, float]:
    """Send traffic until `until` holds, the rollout is rolled back, or the time is over."""
    began = time.monotonic()
    traffic.next_counts()
    async with traffic.flowing():
        while True:
            await asyncio.sleep(POLL_SECONDS)
            view = await admin.view(candidate)
            took = time.monotonic() - began
            if view["stage"] == "rolled_back" or until(view) or took > seconds:
                return view, traffic.next_counts(), took


def shadow_spec(name: str, candidate: str) -> RolloutSpec:
    """Spec of an example, with the stage `shadow` only."""
    spec = load_rollout(EXAMPLES / "rollouts" / f"{name}.yaml")
    return spec.model_copy(update={"candidate": candidate, "stages": ("shadow",)})


def provable_spec(candidate: str) -> RolloutSpec:
    """Spec under which all slices can be proven with the prompts that there are.

    `facts` has 1,120 prompts, and a proof of its tolerance in the example (.005) takes some 1,400.
    """
    spec = shadow_spec("int8", candidate)
    rails = tuple(
        rail.model_copy(update={"slices": {**rail.slices, RARE: RARE_TOLERANCE}})
        if RARE in rail.slices
        else rail
        for rail in spec.guardrails
    )
    return spec.model_copy(update={"guardrails": rails})


async def run_good_build(
    admin: Admin, url: str, candidate: str, options: argparse.Namespace
) -> str:
    """Run a candidate that must not be rolled back; returns a table row."""
    await admin.apply(shadow_spec("int8", candidate))
    traffic = Traffic(url, CLIENTS, seed=options.seed)
    view, counts, took = await follow(
        admin, traffic, candidate, lambda view: view["pairs"] >= options.pairs, options.seconds
    )
    await admin.do("end", candidate)
    signals = {signal["signal"]: signal for signal in view["signals"]}
    whole = signals["displacement"]["aggregate"]
    evidence = ", ".join(
        f"{name} {signal['evidence']:.3g} of {signal['boundary']:.4g}"
        for name, signal in signals.items()
    )
    return (
        f"| {candidate} | {view['pairs']} | {took:.0f} | {view['stage']} | {whole['mean']:.5f} |"
        f" {evidence} | {', '.join(view['proven']) or 'none'} | {len(counts.errors)} |"
    )


async def run_bad_build(admin: Admin, url: str, options: argparse.Namespace) -> list[str]:
    """Run the bad build several times; returns a table row for each."""
    rows = []
    for number in range(options.repeats):
        await admin.apply(shadow_spec("int2", "int2"))
        if number:
            await admin.do("rearm", "int2")
        traffic = Traffic(url, CLIENTS, seed=options.seed + 100 + number)
        view, counts, took = await follow(admin, traffic, "int2", lambda _: False, 120)
        explained = await admin.view("int2", "/explain")
        culprits = ", ".join(explained["culprits"]) or f"none (most: {explained['suspect']})"
        rows.append(
            f"| {number + 1} | {view['stage']} | {explained['pairs']} | {took:.1f} | {culprits} |"
            f" {explained['is_reproduced']} | {len(counts.errors)} |"
        )
        sys.stderr.write(rows[-1] + "\n")
    return rows


def other_weights(variants: dict[str, Any]) -> dict[str, Any]:
    """The demo's builds without int4, and a twin of the baseline."""
    twin = {"engine": {**variants["full"]["engine"], "threads": "1"}}
    return {name: variants[name] for name in variants if name != "int4"} | {TWIN: twin}


def other_engines(variants: dict[str, Any]) -> dict[str, Any]:
    """The baseline, and the engines of `ENGINE_CHANGES`."""
    changed = {}
    for number, (name, (weights, arguments)) in enumerate(ENGINE_CHANGES.items(), 1):
        engine = variants[weights]["engine"]
        changed[name] = {
            "engine": {
                **engine,
                "threads": str(number % 2),
                "engine_args": engine["engine_args"] | arguments,
            }
        }
    return {"full": variants["full"], **changed}


@contextmanager
def installation(
    choose: Callable[[dict[str, Any]], dict[str, Any]],
    folder: Path = FOLDER,
    port_offset: int = 0,
) -> Iterator[PenumbraSpec]:
    """Run the demo's installation with the variants that `choose` makes of its own.

    Args:
        choose: Makes the variants.
        folder: For builds, configuration and state.
        port_offset: Added to each of the demo's ports, so that both can run at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder / "variants", sys.stderr.write)
    data = yaml.safe_load((EXAMPLES / "demo.yaml").read_text())
    variants = choose(data["models"]["demo"]["variants"])
    data["models"]["demo"]["variants"] = variants
    for variant in variants.values():
        source = Path(variant["engine"]["source"]).name
        variant["engine"]["source"] = str(folder / "variants" / source)
    for part in ("gateway", "control", "shadow", "ray"):
        ports = {name: data[part][name] for name in ("port", "internal_port") if name in data[part]}
        data[part] |= {name: port + port_offset for name, port in ports.items()}
    data["state_dir"] = str(folder / "state")
    config = folder / "penumbra.yaml"
    config.write_text(yaml.safe_dump(data, sort_keys=False))
    spec = load(config)
    for file in spec.state_dir.glob("penumbra.db*"):
        file.unlink()
    command = [sys.executable, "-m", "penumbra.serve.cli"]
    subprocess.run(
        [*command, "up", "-f", str(config), "--detach"], check=True, cwd=ROOT, stdout=sys.stderr
    )
    try:
        yield spec
    finally:
        subprocess.run([*command, "down", "-f", str(config)], check=False, cwd=ROOT)


async def measure(spec: PenumbraSpec, options: argparse.Namespace) -> str:
    """Run all rollouts; returns Markdown tables."""
    admin, url = Admin(spec), f"http://{spec.gateway.host}:{spec.gateway.port}"
    bad = await run_bad_build(admin, url, options)
    good = [await run_good_build(admin, url, name, options) for name in (TWIN, "int8")]
    return "\n".join(
        [
            "| candidate | pairs | seconds | stage | displacement | evidence | proven | errors |",
            "|---|---|---|---|---|---|---|---|",
            *good,
            "",
            "| int2 | stage | mirrored requests | seconds | culprits | reproduced | errors |",
            "|---|---|---|---|---|---|---|",
            *bad,
            "",
        ]
    )


async def measure_engines(spec: PenumbraSpec, options: argparse.Namespace) -> str:
    """Run a rollout of each changed engine; returns a Markdown table."""
    admin, url = Admin(spec), f"http://{spec.gateway.host}:{spec.gateway.port}"
    rows = []
    for name in ENGINE_CHANGES:
        await admin.apply(provable_spec(name))
        view, counts, took = await follow(
            admin,
            Traffic(url, CLIENTS, seed=options.seed, slices=(*SLICES, RARE, RARE)),
            name,
            lambda view: (
                set(view["proven"]) >= set(view["slices"]) - {"other"}
                or view["pairs"] >= options.pairs
            ),
            options.seconds,
        )
        await admin.do("end", name)
        changed = differences(view["builds"]["full"], view["builds"][name])
        means = {
            signal["signal"]: f"{signal['aggregate']['mean']:.5f}"
            for signal in view["signals"]
            if signal["aggregate"] and signal["aggregate"]["mean"] is not None
        }
        rows.append(
            f"| {name} | {', '.join(changed)} | {view['pairs']} | {took:.0f} | {view['stage']} |"
            f" {', '.join(f'{signal} {mean}' for signal, mean in means.items())} |"
            f" {', '.join(view['proven']) or 'none'} | {len(counts.errors)} |"
        )
        sys.stderr.write(rows[-1] + "\n")
    return "\n".join(
        [
            "| candidate | differs in | pairs | seconds | stage | means | proven | errors |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=600.0, help="at most, for each good one")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine-changes", action="store_true")
    options = parser.parse_args()
    if options.engine_changes:
        with installation(other_engines) as spec:
            sys.stdout.write(asyncio.run(measure_engines(spec, options)))
        return 0
    with installation(other_weights) as spec:
        sys.stdout.write(asyncio.run(measure(spec, options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
