"""Reads the repository's documents: their fenced blocks, links and the files that they name.

A shell block says in an HTML comment directly above it whether a test runs it:

    <!-- run: SCENARIO -->       run as written, in the scenario's folder; `exit 1` after the name
                                 says with which status it ends
    <!-- not run: REASON -->     not run, and why
    <!-- file: SCENARIO NAME --> this block's text is a file of the scenario
    <!-- shown: SCENARIO -->     every line is printed by the block that ran before
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SHELLS = frozenset({"sh", "bash", "console", "shell"})
FOLDERS = (
    *("docs", "tests", "serve", "router", "deployments", "monitoring", "benchmarks", "scripts"),
    *("requirements", "src"),
)
"""Folders at the top of the repository that documents name files in."""

_FENCE = re.compile(r"^\s*```(\S*)\s*$")
_TAG = re.compile(r"^\s*<!-- (run|not run|file|shown): (.+?) -->\s*$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_NAMED = re.compile(
    rf"(?<![\w./*-])(?:{'|'.join(FOLDERS)})/[\w./-]+\.(?:md|py|yaml|json|toml|sh|db)\b"
)
_MODULE = re.compile(r"\bpenumbra\.(?:serve|router|deployments|monitoring)(?:\.[A-Za-z_]\w*)*")
_HEADING = re.compile(r"^#+ (.+?)\s*$")


class Tag(NamedTuple):
    """The comment above a block: its kind, and what stands behind the colon."""

    kind: str
    text: str


@dataclass(frozen=True)
class Block:
    """One fenced block of a document."""

    path: str
    """Relative to the repository."""
    line: int
    """Of its opening fence, from 1."""
    language: str
    text: str
    tag: Tag | None

    @property
    def place(self) -> str:
        """`docs/flags.md:114`."""
        return f"{self.path}:{self.line}"

    def is_tagged(self, kind: str, scenario: str) -> bool:
        """Whether its comment names this kind and this scenario."""
        return self.tag is not None and self.tag.kind == kind and self.scenario == scenario

    @property
    def scenario(self) -> str:
        """The first word of its comment."""
        return self.tag.text.split()[0] if self.tag else ""

    @property
    def arguments(self) -> list[str]:
        """The words of its comment after the scenario."""
        return self.tag.text.split()[1:] if self.tag else []


@cache
def documents() -> tuple[str, ...]:
    """Every Markdown file of the repository, relative to its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = sorted(listed.split())
    return tuple(name for name in names if not name.startswith("src/") and (ROOT / name).is_file())


def read(path: str) -> str:
    """The text of a document."""
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(path: str) -> Iterator[Block]:
    """The fenced blocks of one document, in order."""
    lines = read(path).splitlines()
    start: tuple[int, str] | None = None
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if start is None and fence is not None:
            start = number, fence[1]
        elif start is not None and line.strip() == "```":
            first, language = start
            text = "\n".join(lines[first + 1 : number]) + "\n"
            yield Block(path, first + 1, language, text, _tag(lines[first - 1] if first else ""))
            start = None


def links(path: str) -> Iterator[str]:
    """The targets of a document's relative links, anchors included."""
    for target in _LINK.findall(prose(path)):
        if "://" not in target and not target.startswith("mailto:"):
            yield target


def named_files(path: str) -> set[str]:
    """Files that a document names by their place in the repository."""
    return set(_NAMED.findall(read(path)))


def named_modules(path: str) -> set[str]:
    """Dotted names below `penumbra` in a document."""
    return set(_MODULE.findall(read(path)))


def anchors(path: str) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    found = (_HEADING.match(line) for line in prose(path).splitlines())
    return {_anchor(heading[1]) for heading in found if heading is not None}


def prose(path: str) -> str:
    """A document without its fenced blocks."""
    kept, is_inside = [], False
    for line in read(path).splitlines():
        if _FENCE.match(line):
            is_inside = not is_inside
        elif not is_inside:
            kept.append(line)
    return "\n".join(kept)


def _tag(line: str) -> Tag | None:
    found = _TAG.match(line)
    return Tag(found[1], found[2]) if found is not None else None


def _anchor(heading: str) -> str:
    plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower())
    return plain.replace(" ", "-")
