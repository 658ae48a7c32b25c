"""Finds prose that CONTRIBUTING.md forbids: riddles, openings that name no thing, loops over `one`.

`python -m tests.support.prose [PATH ...]` prints what it finds below the paths, a line each.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
VAGUE = re.compile(r"\b(whoever|somebody|nobody|everybody)(?:'s)?\b|\bsee there\b", re.IGNORECASE)
OPENING = re.compile(r"(What|Who|Whose|Which|Where|How|Why)\b")
ADR_NAME = re.compile(r"\b\d{4}-[a-z0-9-]+")
TEXTS = frozenset({".md", ".yaml", ".yml", ".toml", ".sh", ".html", ".jsx", ".js"})
EXEMPT = ("tests/fixtures/", "tests/support/prose.py", "tests/conformance/test_prose.py")
"""Data, and the two places that must name the words."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Offence(NamedTuple):
    """One place that reads badly."""

    path: str
    line: int
    problem: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}: {self.text.strip()[:100]}"


def tracked(paths: Iterable[str] = ()) -> list[Path]:
    """The files of the repository that have prose, below some paths."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *paths]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.splitlines() if not name.startswith(EXEMPT)]
    return [file for file in files if file.is_file() and not file.is_symlink()]


def offences(paths: Iterable[str] = ()) -> Iterator[Offence]:
    """Every offence below some paths; in the whole repository without any."""
    for file in tracked(paths):
        name = str(file.relative_to(ROOT))
        if file.suffix == ".py":
            source = file.read_text(encoding="utf-8")
            yield from _vague_words(name, source)
            yield from _of_tree(name, ast.parse(source))
        elif file.suffix in TEXTS or file.name == "Makefile":
            yield from _vague_lines(name, file.read_text(encoding="utf-8"))


def _vague_lines(name: str, text: str) -> Iterator[Offence]:
    for number, line in enumerate(text.splitlines(), 1):
        if VAGUE.search(ADR_NAME.sub("", line)):
            yield Offence(name, number, "vague word", line)


def _vague_words(name: str, source: str) -> Iterator[Offence]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in {tokenize.STRING, tokenize.COMMENT}:
            for offset, line in enumerate(token.string.splitlines()):
                if VAGUE.search(ADR_NAME.sub("", line)):
                    yield Offence(name, token.start[0] + offset, "vague word", line)
        elif token.type == tokenize.NAME and VAGUE.search(token.string.replace("_", " ")):
            yield Offence(name, token.start[0], "vague name", token.string)


def _of_tree(name: str, tree: ast.Module) -> Iterator[Offence]:
    for node in ast.walk(tree):
        if isinstance(node, Documented):
            yield from _opening(name, node)
        target = getattr(node, "target", None)
        if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension) and _is_one(target):
            yield Offence(name, target.lineno, "loop over", "`one`: use the noun")


def _opening(name: str, node: Documented) -> Iterator[Offence]:
    is_private = getattr(node, "name", "").startswith("_")
    opening = ast.get_docstring(node) or ""
    if not is_private and OPENING.match(opening):
        line = getattr(node, "lineno", 1)
        yield Offence(name, line, "opening that names no thing", opening.splitlines()[0])


def _is_one(target: ast.expr | None) -> bool:
    return isinstance(target, ast.Name) and target.id == "one"


def main() -> None:
    """Print what is found below the paths of the command line."""
    found = list(offences(sys.argv[1:]))
    for offence in found:
        print(offence)
    print(f"{len(found)} found")


if __name__ == "__main__":
    main()
