"""Renders the explanation of a rollback for a terminal."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from penumbra.serve.cli.meters import plot
from penumbra.serve.cli.rollout_texts import Json, clock, effect_text, times_text
from penumbra.serve.cli.rollout_views import grid

WORST_SHOWN = 8
"""Rows of the worst pairs; JSON has all."""


def explanation(answer: Json) -> RenderableType:
    """The guardrail, the path of its evidence, the culprits, the worst pairs, the times."""
    return Group(*_parts(answer))


def _parts(answer: Json) -> Iterator[RenderableType]:
    yield _headline(answer)
    yield Text(answer["cause"])
    if answer["path"] and answer["boundary"] is not None:
        yield Text("")
        yield Text(f"evidence against {answer['candidate']} by {answer['signal']}, log scale")
        points = [(point["count"], point["evidence"]) for point in answer["path"]]
        for line in plot(points, answer["boundary"]):
            yield Text(line, style="yellow", no_wrap=True)
    yield Text("")
    yield from _culprits(answer)
    for effect in answer.get("effects", ()):
        yield Text(f"Since the onset, {effect_text(effect)}")
    if answer["worst"]:
        yield Text("")
        yield _worst(answer)
    yield Text("")
    if answer["times"]:
        yield Text(f"Times: {times_text(answer['times'])}")
    yield _recomputed(answer)


def _headline(answer: Json) -> Text:
    action = "rolled back" if answer["action"] == "rollback" else "quarantined slices of"
    text = Text(
        f"{answer['actor']} {action} {answer['candidate']} of {answer['model']}", "bold red"
    )
    earlier = answer.get("earlier_runs")
    after = f" after {earlier} earlier of the same builds" if earlier else ""
    text.append(
        f"   {clock(answer['at'])}, epoch {answer['epoch']}, run {answer['run']}{after},"
        f" {answer['pairs']} mirrored requests",
        style="not bold default",
    )
    if answer.get("scope"):
        text.append(f"\nOnly {answer['scope']}.", style="not bold default")
    return text


def _culprits(answer: Json) -> Iterator[Text]:
    if answer["culprits"]:
        named = Text("Culprit slices: ", style="bold")
        yield named + Text(", ".join(answer["culprits"]), style="red")
    elif answer["suspect"]:
        yield Text(f"No slice is named with confidence; most evidence: {answer['suspect']}")
    if answer.get("answered_by"):
        yield Text(
            f"Most of the evidence is of requests that the {answer['answered_by']} answered."
        )


def _worst(answer: Json) -> RenderableType:
    table = grid("worst pairs", "slice", "displacement", "harm", "candidate failed", "baseline")
    for pair in answer["worst"][:WORST_SHOWN]:
        displacement = pair["displacement"]
        table.add_row(
            pair["request_id"],
            pair["slice"],
            "-" if displacement is None else f"{displacement:.4f}",
            "-" if pair["harm"] is None else f"{pair['harm']}",
            ", ".join(pair["failed"]) or pair["missing"] or "-",
            ", ".join(pair["failed_baseline"]) or "-",
        )
    return table


def _recomputed(answer: Json) -> Text:
    if answer.get("is_pruned"):
        before = clock(answer["pruned_before"])
        text = f"Pruned: the observations of before {before} were deleted; nothing is recomputed."
        return Text(text, style="yellow")
    if answer["is_reproduced"] is None:
        return Text("Decided by a person: there is nothing to recompute.", style="dim")
    evidence = answer["recomputed_evidence"]
    found = f" ({evidence:.6g})" if evidence is not None else ""
    if answer["is_reproduced"]:
        return Text(f"Recomputed from the stored observations: same verdict{found}", style="green")
    return Text(
        f"Recomputed from the stored observations: {answer['recomputed_verdict']}{found},"
        " which is NOT what was decided",
        style="bold red",
    )
