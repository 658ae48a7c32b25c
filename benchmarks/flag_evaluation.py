"""Benchmark of flags: the cost of `flags.evaluate` and `slices.slice_of` in microseconds.

    python benchmarks/flag_evaluation.py

In one process, no I/O. Each figure is the best of several runs, which is the one least disturbed.
"""

import platform
import timeit
from collections.abc import Callable

from penumbra.router.flags.evaluate import Context, compile_model, evaluate
from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.routing_table import (
    Flag,
    Match,
    ModelSnapshot,
    Rule,
    SliceRule,
    Variant,
)
from penumbra.router.flags.slices import slice_of

RUNS, TIMES = 7, 20_000

SLICES = (
    SliceRule(name="tools", match=Match(tools=True)),
    SliceRule(name="json", match=Match(json_mode=True)),
    SliceRule(name="greek", match=Match(scripts=("greek",))),
    SliceRule(name="long", match=Match(prompt_chars_min=20_000)),
)
RULES = (
    Rule(name="staff", match=Match(headers={"x-team": ("ml",)}), variant="int4"),
    Rule(name="globex", match=Match(tenants=("globex",)), split={"int8": 50}),
    Rule(name="greek", match=Match(slices=("greek",)), variant="full"),
)
SHORT = "What is the capital of France, and how many people live there?"
GREEK = "Ποια είναι η πρωτεύουσα της Γαλλίας και πόσοι ζουν εκεί; "


def main() -> None:
    """Measure and print a Markdown table."""
    print(f"Python {platform.python_version()}, best of {RUNS} runs\n")
    print("| | µs |\n|---|---|")
    plain = Flag(split={"int8": 30, "int4": 5})
    for name, flag in (
        ("evaluate: no flag", Flag()),
        ("evaluate: split over two candidates", plain),
        ("evaluate: three rules that do not match, then the split", _with_rules(plain)),
        ("evaluate: kill switch", Flag(killed=True)),
    ):
        _row(name, _evaluation(flag))
    for name, text in (
        ("slice: four rules on the body, short prompt", SHORT),
        ("slice: four rules on the body, 30 000 characters", SHORT * 484),
        ("slice: four rules on the body, 30 000 characters of Greek", GREEK * 527),
    ):
        _row(name, _slicing(text), times=2_000)


def _with_rules(flag: Flag) -> Flag:
    return flag.model_copy(update={"rules": RULES})


def _evaluation(flag: Flag) -> Callable[[], object]:
    model = compile_model("demo", _model(flag))
    context = Context(
        model="demo",
        tenant="acme",
        headers={},
        targeting_key="user-123456",
        slice="other",
        request_id="req-1",
        features=RequestFeatures.of({}),
    )
    return lambda: evaluate(model, context)


def _slicing(text: str) -> Callable[[], object]:
    slices = compile_model("demo", _model(Flag())).slices
    body = {"messages": [{"role": "user", "content": text}]}
    # A request's features are its own: nothing is remembered from one to the next.
    return lambda: slice_of(slices, "acme", {}, RequestFeatures.of(body))


def _model(flag: Flag) -> ModelSnapshot:
    variants = {name: Variant(url="http://localhost") for name in ("full", "int8", "int4")}
    return ModelSnapshot(baseline="full", variants=variants, slices=SLICES, flag=flag)


def _row(name: str, work: Callable[[], object], times: int = TIMES) -> None:
    best = min(timeit.repeat(work, repeat=RUNS, number=times)) / times
    print(f"| {name} | {best * 1e6:.2f} |")


if __name__ == "__main__":
    main()
