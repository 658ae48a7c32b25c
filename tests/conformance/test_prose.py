"""Docstrings, comments, messages and docs are plain sentences, as CONTRIBUTING.md asks."""

from pathlib import Path

import pytest

from tests.support import prose

RIDDLE = '''"""What it is."""

# Whoever comes first.
MESSAGE = "nobody listens"


class Desk:
    """Which of them."""


def find(found):
    """Finds it."""
    return [one for one in found]
'''


def test_no_prose_is_vague_and_no_opening_names_no_thing() -> None:
    found = [str(offence) for offence in prose.offences()]
    assert found == [], "\n".join(found)


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ("opening that names no thing", 1),
        ("vague word", 3),
        ("vague word", 4),
        ("opening that names no thing", 7),
        ("loop over", 13),
    ],
)
def test_offence_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str, line: int
) -> None:
    file = tmp_path / "riddle.py"
    file.write_text(RIDDLE)
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    monkeypatch.setattr(prose, "tracked", lambda _: [file])
    found = {(offence.problem, offence.line) for offence in prose.offences()}
    assert (problem, line) in found


def test_name_of_an_adr_may_keep_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "page.md"
    file.write_text("See docs/adr/0008-whoever-answered-is-scored.md.\n")
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    monkeypatch.setattr(prose, "tracked", lambda _: [file])
    assert list(prose.offences()) == []
