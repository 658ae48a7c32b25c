"""`make bench-gateway`: every target in turn, round after round, on one machine.

`python -m benchmarks.gateway.run --help` lists the options. Reading order: this file, targets,
scenarios, figures, report; build and processes beneath them.
"""

import argparse
import http.client
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from benchmarks.gateway import build, figures, processes, record, report
from benchmarks.gateway.build import BUILD, MissingError
from benchmarks.gateway.figures import DIRECT, Result, Round
from benchmarks.gateway.scenarios import (
    SCENARIOS,
    STREAM_TOKENS,
    LoadError,
    Scenario,
    measure,
    request_bytes,
)
from benchmarks.gateway.targets import (
    EARLIER,
    KEY,
    OVERHEADS,
    TARGETS,
    Launch,
    Site,
    Target,
    earlier,
    environment,
    free_port,
)

_READY_SECONDS = 60.0
_SETTLE_SECONDS = 0.2
_QUICK = ("direct", "nginx", "penumbra", "vllm-router")


@dataclass(frozen=True)
class Bench:
    """A run: where it works, which cores it uses, what it measures."""

    work: Path
    upstreams: tuple[int, int]
    target_core: int
    load_core: int
    scenarios: Sequence[Scenario]


def main() -> int:
    """Runs the benchmark; 1 when a target of the design was missed and --strict was given."""
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM):  # a background job starts with SIGINT ignored
        signal.signal(number, _on_signal)
    started = time.monotonic()
    try:
        build.compile_tools()
        rounds, missing = _run(options)
    except MissingError as error:
        print(f"cannot run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; every process is stopped", file=sys.stderr)
        return 130
    verdicts = figures.verdicts(rounds)
    facts = record.facts(options.rounds, time.monotonic() - started)
    facts["noise"] = figures.noise(rounds)
    text = report.markdown(facts, rounds, missing, verdicts)
    data = {
        "environment": facts,
        "rounds": [{n: r.model_dump() for n, r in results.items()} for results in rounds],
        "missing": missing,
        "verdicts": [v.model_dump() for v in verdicts],
    }
    record.write(options.out, text, data)
    print(text)
    missed = any(v.outcome != "pass" for v in verdicts)
    return 1 if missed and options.strict else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.gateway.run")
    parser.add_argument("--quick", action="store_true", help="four targets, one short round")
    parser.add_argument("--rounds", type=int, help="default 3")
    parser.add_argument("--targets", help="comma-separated; direct is always measured")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="penumbra of another checkout, too"
    )
    parser.add_argument("--overheads", action="store_true", help="penumbra with features off, too")
    parser.add_argument("--strict", action="store_true", help="fail when a verdict is not `pass`")
    parser.add_argument("--out", type=Path, default=BUILD / "bench-gateway.json", metavar="FILE")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


def _chosen(options: argparse.Namespace) -> list[Target]:
    before = [earlier(options.against)] if options.against else []
    targets = [*TARGETS, *before, *(OVERHEADS if options.overheads else ())]
    wanted = options.targets.split(",") if options.targets else None
    if wanted is None and options.quick:
        wanted = [*_QUICK, *(t.name for t in OVERHEADS if options.overheads)]
    if wanted is None:
        return targets
    known = {t.name for t in (*TARGETS, *OVERHEADS)}
    wanted += [t.name for t in before]
    if unknown := set(wanted) - known - {EARLIER}:
        raise MissingError(f"unknown targets {sorted(unknown)}; known: {sorted(known)}")
    return [t for t in (*TARGETS, *before, *OVERHEADS) if t.name in {DIRECT, *wanted}]


def _run(options: argparse.Namespace) -> tuple[list[Round], dict[str, str]]:
    targets = _chosen(options)
    scenarios = [s.shorter() for s in SCENARIOS] if options.quick else SCENARIOS
    target_core, load_core = processes.cores()
    os.sched_setaffinity(0, {load_core})  # nothing of ours beside the target
    rounds: list[Round] = []
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="penumbra-bench-") as folder:
        work, ports = Path(folder), (free_port(), free_port())
        bench = Bench(work, ports, target_core, load_core, scenarios)
        command = [str(BUILD / "upstream"), str(STREAM_TOKENS), *(str(p) for p in ports)]
        log = work / "upstream.log"
        env = environment({}, work)
        with processes.running(command, core=load_core, log=log, env=env, cwd=work) as upstream:
            processes.wait_until(_READY_SECONDS, lambda: _no_upstream(bench), upstream)
            for number in range(options.rounds):
                # Each round starts elsewhere, so that no target always follows the same neighbour.
                turn = number * 3 % len(targets)
                rounds.append(_round(bench, [*targets[turn:], *targets[:turn]], number, missing))
    return [
        {t.name: results[t.name] for t in targets if t.name in results} for results in rounds
    ], missing


def _round(bench: Bench, order: list[Target], number: int, missing: dict[str, str]) -> Round:
    results: Round = {}
    for target in order:
        if target.name in missing:
            continue
        print(f"round {number + 1}: {target.name} ...", file=sys.stderr, flush=True)
        try:
            results[target.name] = _measure_target(bench, target)
        except (MissingError, LoadError, OSError) as error:
            missing[target.name] = f"round {number + 1}: {error}"
            print(f"  not measured: {error}", file=sys.stderr, flush=True)
    return results


def _measure_target(bench: Bench, target: Target) -> Result:
    work = bench.work / target.name.replace(" ", "-")
    work.mkdir(exist_ok=True)
    with _started(bench, target, work) as (port, process):
        before = _served(bench)
        noise = _Noise(process, bench.target_core)
        measurements = {}
        for scenario in bench.scenarios:
            request = work / "request"
            request.write_bytes(request_bytes(target, scenario))
            pids = process.pids() if process else []
            load = scenario.longer(target.stream_patience)
            measurements[scenario.name] = measure(load, request, port, pids, bench.load_core)
            # Streams that the window cut off are let go of before the next load.
            time.sleep(_SETTLE_SECONDS)
        foreign_share = noise.share()
        memory = process.memory() if process else processes.Memory((), 0.0)
        first, second = (now - then for now, then in zip(_served(bench), before, strict=True))
    return Result(
        target=target.name,
        kind=target.kind,
        measurements=measurements,
        rss_mb=memory.rss_mb,
        pss_mb=memory.pss_mb,
        second_upstream_share=second / max(1, first + second),
        foreign_share=foreign_share,
    )


class _Noise:
    """What processes other than the target take of its core, from now on."""

    def __init__(self, target: processes.Running | None, core: int) -> None:
        self._target, self._core = target, core
        self._began = time.monotonic()
        self._before = self._foreign_seconds()

    def share(self) -> float:
        """Their share until now, in [0, 1]."""
        taken = self._foreign_seconds() - self._before
        return max(0.0, taken / (time.monotonic() - self._began))

    def _foreign_seconds(self) -> float:
        own = self._target.cpu_seconds() if self._target else 0.0
        return processes.busy_seconds(self._core) - own


@contextmanager
def _started(
    bench: Bench, target: Target, work: Path
) -> Iterator[tuple[int, processes.Running | None]]:
    launch = target.prepare(Site(work, bench.upstreams))
    if launch is None:
        yield bench.upstreams[0], None
        return
    log = work / "log"
    env = environment(launch.env, work)
    command, core = launch.command, bench.target_core
    # In its own folder: a target must find nothing of the repository by accident.
    with processes.running(command, core=core, log=log, env=env, cwd=work) as process:
        probe = request_bytes(target, bench.scenarios[0]).partition(b"\r\n\r\n")[2]

        def fault() -> str | None:
            port = _port(launch, log)
            return "it has not said its port" if port is None else _ask(port, target.path, probe)

        processes.wait_until(_READY_SECONDS, fault, process)
        port = _port(launch, log)
        if port is None:
            raise MissingError("its log no longer says its port")
        yield port, process


def _port(launch: Launch, log: Path) -> int | None:
    if launch.port_in_log is None:
        return launch.port
    found = launch.port_in_log.search(log.read_text(errors="replace"))
    return int(found[1]) if found else None


def _ask(port: int, path: str, body: bytes) -> str | None:
    """Sends one request; None when it was answered, else what was wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        text = answer.read(300).decode(errors="replace")
        return None if answer.status == 200 else f"status {answer.status}: {text}"
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def _served(bench: Bench) -> tuple[int, int]:
    connection = http.client.HTTPConnection("127.0.0.1", bench.upstreams[0], timeout=10)
    try:
        connection.request("GET", "/stats")
        first, second = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return first, second


def _no_upstream(bench: Bench) -> str | None:
    try:
        _served(bench)
    except OSError as error:
        return str(error)
    return None


def _on_signal(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
