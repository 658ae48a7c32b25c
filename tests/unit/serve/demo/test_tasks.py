"""The demo's tasks: checkable, reproducible, and split so that no prompt is on both sides."""

import itertools
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.serve.demo import tasks
from penumbra.serve.demo.tasks import (
    SLICES,
    Task,
    fresh_tasks,
    is_correct,
    make_tasks,
    transliterate,
)


@pytest.mark.parametrize("name", SLICES)
def test_make_tasks_same_seed_same_tasks(name: str) -> None:
    assert make_tasks(name, 20, 3) == make_tasks(name, 20, 3)


@pytest.mark.parametrize("name", SLICES)
def test_make_tasks_other_seed_other_tasks(name: str) -> None:
    assert make_tasks(name, 20, 3) != make_tasks(name, 20, 4)


@pytest.mark.parametrize("name", SLICES)
def test_make_tasks_held_out_prompts_are_never_trained_on(name: str) -> None:
    held_out = {task.prompt for task in make_tasks(name, 400, 1)}
    trained = {task.prompt for task in make_tasks(name, 4_000, 1, held_out=False)}
    assert not held_out & trained


@pytest.mark.parametrize("name", SLICES)
def test_make_tasks_each_slice_begins_with_its_own_word(name: str) -> None:
    words = {task.prompt.split(":")[0] for task in make_tasks(name, 50, 1)}
    others = {make_tasks(other, 1, 1)[0].prompt.split(":")[0] for other in SLICES if other != name}
    assert len(words) == 1
    assert not words & others


@pytest.mark.parametrize("name", SLICES)
def test_make_tasks_conversation_fits_the_model(name: str) -> None:
    longest = max(
        len(task.prompt.encode()) + len(task.answer.encode()) for task in make_tasks(name, 500, 2)
    )
    assert longest < 1_000


def test_make_tasks_unknown_slice_is_an_error() -> None:
    with pytest.raises(KeyError):
        make_tasks("poetry", 1, 1)


def test_arithmetic_answer_ends_with_the_sum_and_every_column_adds_up() -> None:
    for task in make_tasks("arithmetic", 200, 5):
        left, right = map(int, task.prompt.removeprefix("Add: ").split("+"))
        columns, _, total = task.answer.partition(": ")
        assert int(total) == left + right
        for column in columns.split(", "):
            terms, _, result = column.partition("=")
            assert sum(map(int, terms.split("+"))) == int(result)


def test_json_answer_parses_and_holds_what_the_prompt_says() -> None:
    for task in make_tasks("json", 100, 5):
        fields = json.loads(task.answer)
        assert set(fields) == {"name", "age", "city"}
        assert all(str(value) in task.prompt for value in fields.values())


def test_recall_answer_stands_once_in_a_long_context() -> None:
    for task in make_tasks("recall", 100, 5):
        assert task.prompt.count(task.answer.removesuffix(".").lower()) == 1
        assert len(task.prompt) > 350


def test_sort_answer_is_the_sorted_prompt() -> None:
    for task in make_tasks("sort", 100, 5):
        assert task.answer.split() == sorted(task.prompt.removeprefix("Sort: ").split())


def test_facts_one_answer_per_question() -> None:
    assert len(tasks.facts()) == 320
    assert tasks.facts() == tasks.facts()


@pytest.mark.parametrize(
    ("latin", "greek"),
    [("kalo", "καλο"), ("thapsi", "θαψι"), ("chaksu phi", "χαξυ φι"), ("", ""), ("q1", "q1")],
)
def test_transliterate_takes_digraphs_first(latin: str, greek: str) -> None:
    assert transliterate(latin) == greek


@given(st.text(alphabet="abcxyz ", max_size=20), st.text(alphabet=" \n\t", max_size=4))
def test_is_correct_ignores_surrounding_space_only(answer: str, space: str) -> None:
    task = Task("sort", "Sort:", answer.strip())
    assert is_correct(task, space + task.answer + space)
    assert not is_correct(task, task.answer + "!")


def test_tasks_import_neither_torch_nor_vllm() -> None:
    heavy = {"torch", "vllm", "ray"}
    code = f"import sys; import penumbra.serve.demo.tasks; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.mark.parametrize("name", SLICES)
def test_fresh_tasks_are_held_out_and_no_prompt_comes_twice(name: str) -> None:
    fresh = list(itertools.islice(fresh_tasks(name, 1), 500))
    assert len({task.prompt for task in fresh}) == 500
    trained = {task.prompt for task in make_tasks(name, 4_000, 1, held_out=False)}
    assert not trained & {task.prompt for task in fresh}


def test_fresh_tasks_begin_anew_only_when_nothing_is_left() -> None:
    prompts = [task.prompt for task in itertools.islice(fresh_tasks("facts", 1), 4_000)]
    first_repeat = next(n for n in range(4_000) if prompts[n] in set(prompts[:n]))
    assert first_repeat > 1_000
