import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.signals.code import (
    DEEPEST_NESTING,
    LARGEST_BLOCK_CHARS,
    has_broken_block,
)


def fenced(block: str, language: str = "python") -> str:
    return f"Like this:\n\n```{language}\n{block}\n```\n\nThat is all."


@pytest.mark.parametrize(
    "text",
    [
        fenced("def f(:\n    pass"),
        fenced("for i in range(3)\n    print(i)"),
        fenced("x = (1"),
        fenced("if x:\nprint(1)"),
        fenced("def f(:", "Python"),
        fenced("def f(:", "py"),
        fenced('{"a": 1', "json"),
        fenced("{'a': 1}", "json"),
        fenced("x = 1") + fenced("x ="),
        "```python\nx = (",
    ],
)
def test_a_block_that_does_not_parse_is_found(text: str) -> None:
    assert has_broken_block(text, is_finished=True)


@pytest.mark.parametrize(
    "text",
    [
        "No code at all: def f(:",
        fenced("def f(x):\n    return x"),
        fenced("    def method(self):\n        return self.x"),
        fenced(">>> f(\n3"),
        fenced("!pip install httpx\nimport httpx"),
        fenced("def f(x):\n    ...\n...\nf(3"),
        fenced("re.match('\\d', x)"),
        fenced("def f(:", "javascript"),
        fenced("$ python f(:", ""),
        fenced('{"a": [1, 2]}', "json"),
        fenced("x = '\ud800'"),
        fenced("(" * (DEEPEST_NESTING + 1)),
        fenced("x = (" + "1," * LARGEST_BLOCK_CHARS),
        fenced("", "python"),
        "```",
        "a ``` b ```python c",
    ],
)
def test_what_parses_or_cannot_be_told_is_no_harm(text: str) -> None:
    assert not has_broken_block(text, is_finished=True)


def test_the_last_block_of_an_answer_that_was_cut_is_not_held_against_it() -> None:
    text = fenced("x = 1") + "```python\nx = ("
    assert not has_broken_block(text, is_finished=False)
    assert has_broken_block(fenced("x = (") + text, is_finished=False)


@given(st.text(alphabet="`python\n jsx=(:{'\"", max_size=80), st.booleans())
def test_looking_for_code_is_total(text: str, is_finished: bool) -> None:
    assert has_broken_block(text, is_finished=is_finished) in (True, False)
