import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.signals.repetition import TAIL_CHARS, ends_in_loop

LOOPS = {
    "sentence": "The capital is Paris. " + "It lies on the Seine. " * 6,
    "clause": "The town of the river of the river of the river of the river of the river of",
    "word": "Well " + "no " * 30,
    "character": "The answer is " + "a" * 100,
    "marks": "Yes" + "!" * 60,
    "digits": "0.3" + "3" * 60,
    "lines": "Steps:\n" + "- Open the door\n" * 8,
    "unit cut short": "So " + "we go on and on until " * 5 + "we go",
    "paragraph": "x " + ("A long paragraph that says the same. " * 1 + "Then another one. ") * 5,
    "han": "答案是" + "我们需要考虑" * 10,
    "rules without end": "-" * 400,
    "json": '{"a": [' + '"x", ' * 30,
}
NATURAL = {
    "prose": "The quick brown fox jumps over the lazy dog. " * 2 + "Then it sleeps.",
    "list": "\n".join(f"{i}. Item number {i}" for i in range(1, 40)),
    "bullets": "\n".join(f"- {name}: one of the planets" for name in ("Venus", "Earth", "Mars")),
    "table": "| a | b | c |\n|---|---|---|\n"
    + "\n".join(f"| {i} | {i * i} | x |" for i in range(30)),
    "table of zeros": "| a | b |\n|---|---|\n| 0 | 0 |\n| 0 | 0 |\n| 1 | 0 |",
    "matrix": "[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]",
    "zeros": "[" + ", ".join(["0"] * 60) + "]",
    "html": "<ul>\n" + "  <li></li>\n" * 20 + "</ul>",
    "nested": "def f():\n"
    + "".join("    " * i + "if x:\n" for i in range(1, 9))
    + "    " * 9
    + "pass",
    "braces": "{" * 20 + "}" * 20,
    "rule": "Title\n" + "=" * 80,
    "dots": "And so it went on" + "." * 80,
    "laughter": "ha ha ha ha ha!",
    "song": "Row, row, row your boat, gently down the stream. " + "Merrily, " * 4 + "life is but",
    "tests": "\n".join(f"assert add({i}, {i}) == {2 * i}" for i in range(12)),
    "fence": "```python\n" + "print()\n" * 9 + "```",
    "spaces": "a" + " " * 500,
    "empty": "",
    "short": "no no no no",
}


@pytest.mark.parametrize("text", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("is_finished", [True, False])
def test_a_loop_at_the_end_is_found(text: str, is_finished: bool) -> None:
    assert ends_in_loop(text, is_finished=is_finished)


@pytest.mark.parametrize("text", NATURAL.values(), ids=NATURAL)
def test_what_people_write_is_no_loop(text: str) -> None:
    assert not ends_in_loop(text, is_finished=True)


def test_an_answer_that_was_cut_is_suspected_sooner() -> None:
    text = "and then we " * 3
    assert not ends_in_loop(text, is_finished=True)
    text = "go on go on " * 3
    assert ends_in_loop(text, is_finished=False)
    assert not ends_in_loop(text, is_finished=True)


def test_a_loop_that_the_answer_came_out_of_is_none() -> None:
    assert not ends_in_loop("no " * 50 + "but then it went well in the end.", is_finished=True)


@given(st.text(alphabet="abc de", min_size=5, max_size=60), st.text(max_size=50))
def test_any_unit_said_ten_times_at_the_end_is_a_loop(unit: str, before: str) -> None:
    said = unit * 10
    if unit.strip() and len(said.rstrip()) >= 48:
        assert ends_in_loop(before + said, is_finished=True)


@given(st.text(max_size=300), st.text(alphabet="ab", min_size=1, max_size=9), st.text(max_size=40))
def test_only_the_end_decides(before: str, unit: str, last: str) -> None:
    tail = (unit * TAIL_CHARS + last + "x")[-TAIL_CHARS:]
    found = ends_in_loop(tail, is_finished=True)
    assert ends_in_loop(before + tail, is_finished=True) == found
