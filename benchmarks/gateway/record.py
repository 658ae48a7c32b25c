"""Writes a run's record: the machine, the figures and the files."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.gateway.build import ROOT
from benchmarks.gateway.targets import TARGETS


def facts(rounds: int, seconds: float) -> dict[str, str]:
    """Machine, versions and noise, for the head of the report."""
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    packages = ("uvicorn", "uvloop", "httptools")
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{cpu[0] if cpu else platform.machine()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "penumbra on": ", ".join(f"{name} {metadata.version(name)}" for name in packages),
        "peers": ", ".join(_peer_versions()),
        "load average at the end": load,
        "rounds": f"{rounds}, {seconds:.0f} s in all",
    }


def _peer_versions() -> list[str]:
    names = [t.name for t in TARGETS if t.kind in ("rust", "python")]
    pins = []
    for name in names:
        lines = (ROOT / "requirements" / f"bench-{name}.txt").read_text().splitlines()
        pins += [line.replace("==", " ") for line in lines if line.startswith(f"{name}==")]
    return pins


def write(out: Path, text: str, data: dict[str, Any]) -> None:
    """The report as JSON in `out`, and as Markdown beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(data, indent=1) + "\n")
    out.with_suffix(".md").write_text(text)
    print(f"written: {out} and {out.with_suffix('.md')}", file=sys.stderr)
