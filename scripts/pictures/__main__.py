r"""Takes one picture of each dashboard, from a Prometheus or from results that were kept.

python -m scripts.pictures --prometheus http://127.0.0.1:9090 --start 1764000000 --end 1764000180 \
    --model demo --candidate int2 --out docs/pictures --keep results.json.gz
python -m scripts.pictures --results results.json.gz --out docs/pictures
"""

import argparse
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.pictures.answers import Prometheus, PrometheusFailed, answers, page_input
from scripts.pictures.browser import PictureFailed, build, take
from tests.support.panel_queries import NAMES, Times, load

POINTS = 300


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.pictures", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--prometheus", help="address of the Prometheus to ask")
    parser.add_argument("--results", type=Path, help="draw kept results; asks no Prometheus")
    parser.add_argument("--keep", type=Path, help="keep the results here (.json or .json.gz)")
    parser.add_argument("--start", type=float, help="Unix time, seconds")
    parser.add_argument("--end", type=float, help="Unix time, seconds")
    parser.add_argument("--step", type=float, help=f"seconds; without it, {POINTS} points")
    parser.add_argument("--scrape", type=float, default=5.0, help="scrape interval, seconds")
    parser.add_argument("--model", help="name of the model")
    parser.add_argument("--candidate", help="name of the candidate")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--dashboards", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--width", type=int, default=1200, help="of the page, pixels")
    parser.add_argument("--scale", type=float, default=1.5, help="pixels of the picture for each")
    return parser.parse_args()


def _ask(arguments: argparse.Namespace) -> dict[str, Any]:
    needed = ("prometheus", "start", "end", "model", "candidate")
    if missing := [f"--{name}" for name in needed if getattr(arguments, name) is None]:
        raise SystemExit(f"without --results, {', '.join(missing)} must be given")
    span = arguments.end - arguments.start
    if span <= 0:
        raise SystemExit(f"--end must be after --start; they are {span:g} s apart")
    times = Times(
        interval=arguments.step or max(1.0, round(span / POINTS)),
        span=span,
        scrape=arguments.scrape,
    )
    choice = {"model": arguments.model, "candidate": arguments.candidate}
    prometheus = Prometheus(arguments.prometheus, arguments.start, arguments.end, times)
    return {
        "range": {
            "from": round(arguments.start * 1000),
            "to": round(arguments.end * 1000),
            "step": round(times.interval * 1000),
        },
        "dashboards": {
            name: answers(load(name), _choice(load(name), choice), times, prometheus)
            for name in NAMES
        },
    }


def _choice(dashboard: Mapping[str, Any], choice: Mapping[str, str]) -> dict[str, str]:
    """What must be chosen; a variable that has All shows all there is."""
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    return {
        name: value
        for name, value in choice.items()
        if not variables.get(name, {}).get("includeAll")
    }


def _kept(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    found: dict[str, Any] = json.loads(
        gzip.decompress(content) if path.suffix == ".gz" else content
    )
    return found


def _keep(path: Path, results: dict[str, Any]) -> None:
    content = json.dumps(results).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    # mtime 0: the same results are the same bytes.
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _draw(arguments: argparse.Namespace) -> list[Path]:
    results = _kept(arguments.results) if arguments.results else _ask(arguments)
    if arguments.keep:
        _keep(arguments.keep, results)
    inputs = {name: page_input(load(name), results) for name in arguments.dashboards}
    build()
    return take(inputs, arguments.out, arguments.width, arguments.scale)


def main() -> None:
    """The command."""
    try:
        pictures = _draw(_arguments())
    except (PrometheusFailed, PictureFailed) as error:
        raise SystemExit(str(error)) from error
    for picture in pictures:
        print(picture)


if __name__ == "__main__":
    main()
