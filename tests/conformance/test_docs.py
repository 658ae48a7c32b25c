"""The documents: their commands run as written, their links lead somewhere, the index is whole."""

import fcntl
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.documented_engine import engines_on
from tests.support.documents import (
    ROOT,
    SHELLS,
    Block,
    anchors,
    blocks,
    documents,
    links,
    named_files,
    named_modules,
)
from tests.support.scenarios import Scenario

README_LINES = 120
LOCK = Path(tempfile.gettempdir()) / "penumbra-documented-ports.lock"
LANGUAGES = SHELLS | {"text", "yaml", "json", "python", "http", "promql"}
EXAMPLE = "deployments/examples/external.yaml"
SCENARIOS = {
    "five-minutes": ("README.md",),
    "operate": (
        *("docs/flags.md", "docs/rollouts.md", "docs/control-plane.md", "docs/security.md"),
        *("docs/backup.md", "docs/troubleshooting.md", "docs/alerts.md", "docs/dashboards.md"),
    ),
}
"""Scenario -> the documents whose blocks it is made of, in the order of running."""

PORTS = {"five-minutes": (8001, 8002), "operate": (9001, 9002)}
"""Scenario -> the ports of servers that its configuration names."""

COMMAND = re.compile(
    r"^\s*(\$ |penumbra |make |pip |python3? |curl |docker |\.venv/bin/|export )[^─►]*$"
)
UNMADE = frozenset({"docs/adr/NNNN-title.md"})
"""Files that documents name and that are patterns, or made by a command."""

HISTORY = ("CHANGELOG.md", "docs/adr/")
"""Documents of their day: they may name files that have moved since."""

ALL = [block for document in documents() for block in blocks(document)]


def place(block: Block) -> str:
    return block.place


@pytest.mark.parametrize("block", ALL, ids=place)
def test_block_names_its_language(block: Block) -> None:
    assert block.language in LANGUAGES


@pytest.mark.parametrize("block", [b for b in ALL if b.language in SHELLS], ids=place)
def test_shell_block_is_run_or_says_why_not(block: Block) -> None:
    assert block.tag is not None, "wanted <!-- run: SCENARIO --> or <!-- not run: REASON --> above"
    assert block.tag.kind in ("run", "not run")
    if block.tag.kind == "run":
        assert block.path in SCENARIOS[block.scenario]


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "text"], ids=place)
def test_text_block_holds_no_command(block: Block) -> None:
    assert not [line for line in block.text.splitlines() if COMMAND.match(line)]


@contextmanager
def documented_ports() -> Iterator[None]:
    """Have the ports that the documents name to oneself, among all runs of this test."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def running(name: str, folder: Path) -> Iterator[Scenario]:
    """A scenario in a clean folder, its servers up; whatever it has started is ended."""
    scenario = Scenario(name, folder, {"PENUMBRA_ACTOR": "alice"})
    with documented_ports(), engines_on(*PORTS[name]):
        try:
            yield scenario
        finally:
            scenario.run("penumbra down >/dev/null 2>&1 || true", "the end")


@pytest.mark.timeout(300)
def test_five_minute_start_runs_as_written(tmp_path: Path) -> None:
    with running("five-minutes", tmp_path) as scenario:
        assert scenario.play(SCENARIOS["five-minutes"]) == 3
        assert not (tmp_path / ".penumbra" / "state.json").exists()


@pytest.mark.timeout(300)
def test_operators_commands_run_as_written(tmp_path: Path) -> None:
    shutil.copy(ROOT / EXAMPLE, tmp_path / "penumbra.yaml")
    with running("operate", tmp_path) as scenario:
        scenario.run("penumbra up --detach", EXAMPLE)
        assert scenario.play(SCENARIOS["operate"]) == 10


@pytest.mark.parametrize("document", documents())
def test_relative_links_lead_somewhere(document: str) -> None:
    for target in links(document):
        path, _, anchor = target.partition("#")
        found = ((ROOT / document).parent / path).resolve() if path else ROOT / document
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(str(found.relative_to(ROOT))), target


@pytest.mark.parametrize("document", [d for d in documents() if not d.startswith(HISTORY)])
def test_named_files_exist(document: str) -> None:
    named = named_files(document) - UNMADE
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


@pytest.mark.parametrize("document", [d for d in documents() if not d.startswith(HISTORY)])
def test_named_modules_exist(document: str) -> None:
    assert sorted(name for name in named_modules(document) if not is_there(name)) == []


def is_there(name: str) -> bool:
    """Whether a dotted name is a module's, or that of something defined in one."""
    *above, last = name.split(".")[1:]
    folder = ROOT.joinpath(*above)
    if (folder / last).is_dir() or (folder / f"{last}.py").is_file():
        return True
    source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    defined = rf"^(?:(?:async )?def |class )?{last}\b"
    return source.is_file() and re.search(defined, source.read_text(), re.MULTILINE) is not None


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


def test_index_lists_every_page_once() -> None:
    pages = {d for d in documents() if d.startswith("docs/")} - {"docs/README.md"}
    listed = Counter(
        str((ROOT / "docs" / target.partition("#")[0]).resolve().relative_to(ROOT))
        for target in links("docs/README.md")
    )
    assert {page: listed[page] for page in pages} == dict.fromkeys(pages, 1)
