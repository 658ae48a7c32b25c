"""Generated tasks with one right answer each, in six slices that quantization hurts unevenly.

Every slice starts its prompt with its own instruction word, so that a routing rule can recognise
it from the text. A prompt is held out when the checksum of what varies in it falls in a fixed
tenth; training never sees that tenth. The facts are the exception: they are invented, so they can
only be memorised, and what is held out there is the phrasing of the question.

It needs the standard library only, so that demos and load generators can import it. The same seed
gives the same tasks on every machine.
"""

import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

_CONSONANTS: Final = "bdfgklmnprstvz"
_VOWELS: Final = "aeiou"
_HELD_OUT_IN: Final = 10
_MOST_MISSED: Final = 1000
_CAPITALS: Final = "ABCDEFGHIJKLMNOPSTUVWXYZ"
_FACT_SEED: Final = 20_411
_FACT_SUBJECTS: Final = 160

_LATIN: Final = ("th", "ch", "ps", "ks", "ph", *"avgdeziklmnoprstu")
_GREEK: Final = dict(zip(_LATIN, "θχψξφαβγδεζικλμνοπρστυ", strict=True))
_GREEK_ONSETS: Final = tuple(letter for letter in _GREEK if letter not in _VOWELS)

_FACT_LEADS: Final = (
    "",
    "what is ",
    "tell me ",
    "please give ",
    "do you know ",
    "I need ",
    "name ",
    "find ",
)
_FACT_TAILS: Final = ("?", ".", ", please", " now", " today?", ", thanks")
_FACT_RELATIONS: Final = ("river", "mayor")


@dataclass(frozen=True, slots=True)
class Task:
    """One question and the only answer that counts.

    Attributes:
        slice: The slice that it belongs to, one of `SLICES`.
        prompt: What is sent as a single `user` message.
        answer: What has to come back, without surrounding white space.
    """

    slice: str
    prompt: str
    answer: str


def is_correct(task: Task, text: str) -> bool:
    """Whether `text` is the answer, surrounding white space aside."""
    return text.strip() == task.answer


def make_tasks(slice_name: str, count: int, seed: int, *, held_out: bool = True) -> list[Task]:
    """Generate tasks of one slice.

    Args:
        slice_name: One of `SLICES`.
        count: How many; prompts may repeat where a slice has few.
        seed: The same seed gives the same tasks on every machine.
        held_out: Whether to draw from the prompts that training never sees, or from the others.

    Returns:
        `count` tasks.

    Raises:
        KeyError: `slice_name` is not a slice.
    """
    generate = _GENERATORS[slice_name]
    rng = random.Random(f"{slice_name}/{seed}/{held_out}")  # noqa: S311 - reproducible, not secret
    tasks: list[Task] = []
    while len(tasks) < count:
        varying, task = generate(rng)
        if is_held_out(varying) == held_out:
            tasks.append(task)
    return tasks


def fresh_tasks(slice_name: str, seed: int) -> Iterator[Task]:
    """Held-out tasks of one slice without end; none repeats, since repeats prove nothing new.

    Only when a slice has no prompt left (`facts` has 1,120) does it begin anew.

    Args:
        slice_name: One of `SLICES`.
        seed: The same seed gives the same tasks on every machine.

    Raises:
        KeyError: `slice_name` is not a slice.
    """
    generate = _GENERATORS[slice_name]
    rng = random.Random(f"{slice_name}/fresh/{seed}")  # noqa: S311 - reproducible, not secret
    seen: set[str] = set()
    missed = 0
    while True:
        varying, task = generate(rng)
        if not is_held_out(varying):
            continue
        if task.prompt in seen:
            missed += 1
            if missed < _MOST_MISSED:
                continue
            seen.clear()
        missed = 0
        seen.add(task.prompt)
        yield task


def facts() -> dict[tuple[str, str], str]:
    """Every memorised fact: (relation, town) to name."""
    rng = random.Random(_FACT_SEED)  # noqa: S311
    towns: list[str] = []
    while len(towns) < _FACT_SUBJECTS:
        town = _syllables(rng, 3).capitalize()
        if town not in towns:
            towns.append(town)
    return {
        (relation, town): _syllables(rng, 3).capitalize()
        for town in towns
        for relation in _FACT_RELATIONS
    }


def transliterate(latin: str) -> str:
    """Latin letters to Greek ones, digraphs first; what is no Latin letter stays."""
    letters: list[str] = []
    position = 0
    while position < len(latin):
        width = 2 if latin[position : position + 2] in _GREEK else 1
        source = latin[position : position + width]
        letters.append(_GREEK.get(source, source))
        position += width
    return "".join(letters)


def is_held_out(varying: str) -> bool:
    """Whether what varies in a prompt belongs to the tenth that training never sees."""
    return zlib.crc32(varying.encode()) % _HELD_OUT_IN == 0


def _syllables(rng: random.Random, count: int) -> str:
    return "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(count))


def _arithmetic(rng: random.Random) -> tuple[str, Task]:
    """Three-digit addition, worked column by column as it is taught at school."""
    left, right = rng.randint(100, 999), rng.randint(100, 999)
    steps: list[str] = []
    carry = 0
    for a, b in zip(reversed(str(left)), reversed(str(right)), strict=True):
        total = int(a) + int(b) + carry
        steps.append(f"{a}+{b}+{carry}={total:02d}")
        carry = total // 10
    problem = f"{left}+{right}"
    answer = f"{', '.join(steps)}: {left + right}"
    return problem, Task("arithmetic", f"Add: {problem}", answer)


def _json(rng: random.Random) -> tuple[str, Task]:
    """One sentence about a person into an object with three fields."""
    name = f"{_syllables(rng, 2)} {_syllables(rng, rng.randint(2, 3))}".title()
    city = _syllables(rng, rng.randint(2, 3)).capitalize()
    age = rng.randint(18, 99)
    sentence = rng.choice(
        (
            f"{name} is {age} and lives in {city}.",
            f"{name} of {city} is {age}.",
            f"In {city} lives {name}, aged {age}.",
        )
    )
    answer = json.dumps({"name": name, "age": age, "city": city})
    return name, Task("json", f"JSON: {sentence}", answer)


def recall_task(rng: random.Random, parcels: int) -> Task:
    """One code word somewhere among `parcels` parcels, 20 bytes each."""
    lines = [
        f"parcel number {rng.choice(_CAPITALS)}{rng.randint(100, 999)}" for _ in range(parcels)
    ]
    sentence = f"the code word is {_syllables(rng, 3)}"
    lines.insert(rng.randint(0, parcels), sentence)
    prompt = f"Recall: {', '.join(lines)}. Q: code word?"
    return Task("recall", prompt, f"{sentence.capitalize()}.")


def _recall(rng: random.Random) -> tuple[str, Task]:
    """One sentence to be found again in some 380 to 540 bytes."""
    task = recall_task(rng, rng.randint(16, 24))
    return task.prompt, task


def _facts(rng: random.Random) -> tuple[str, Task]:
    """A fact that no context holds: it is in the weights or nowhere."""
    (relation, town), name = rng.choice(list(_FACTS.items()))
    phrasing = f"{rng.choice(_FACT_LEADS)}the {relation} of @{rng.choice(_FACT_TAILS)}"
    prompt = f"Fact: {phrasing.replace('@', town)}"
    return phrasing, Task("facts", prompt, f"The {relation} of {town} is {name}.")


def _sort(rng: random.Random) -> tuple[str, Task]:
    """Four to six short words, no two with the same initial, into alphabetical order."""
    initials = rng.sample(_CONSONANTS, rng.randint(4, 6))
    words = [first + rng.choice(_VOWELS) + rng.choice(_CONSONANTS) for first in initials]
    listed = " ".join(words)
    return listed, Task("sort", f"Sort: {listed}", " ".join(sorted(words)))


def _greek(rng: random.Random) -> tuple[str, Task]:
    """Two words from Latin letters into Greek ones; instruction and answer are Greek script."""
    words = [
        "".join(rng.choice(_GREEK_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(2, 3)))
        for _ in range(2)
    ]
    latin = " ".join(words)
    return latin, Task("greek", f"Γράψε ελληνικά: {latin}", transliterate(latin))


_FACTS: Final = facts()
_GENERATORS: Final[dict[str, Callable[[random.Random], tuple[str, Task]]]] = {
    "arithmetic": _arithmetic,
    "json": _json,
    "recall": _recall,
    "facts": _facts,
    "sort": _sort,
    "greek": _greek,
}
SLICES: Final[tuple[str, ...]] = tuple(_GENERATORS)
