"""Renders rollouts for a terminal.

Reading order: rollouts_table, rollout_view; explanations are in `rollout_explain`.
"""

from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penumbra.monitoring.build_facts import differences
from penumbra.serve.cli.channel_views import channels_table
from penumbra.serve.cli.latency_views import latency_text
from penumbra.serve.cli.meters import bar, progress
from penumbra.serve.cli.rollout_texts import (
    Json,
    age_text,
    clock,
    effect_text,
    interval_text,
    number_text,
    rollback_text,
)

_SHORT_FACT = 48
"""Characters of a fact's two values that are shown; of longer ones only the name is."""
_VERDICTS = {"pass": "green", "fail": "red", "error": "magenta", "inconclusive": "yellow"}
_STAGES = {"promoted": "green", "graduated": "green", "rolled_back": "red", "off": "dim"}


def rollouts_table(answer: Json) -> RenderableType:
    """All rollouts, one a line."""
    if not answer["rollouts"]:
        return Text("no rollouts: begin one with `penumbra rollout apply -f FILE --reason WHY`")
    table = grid("model", "candidate", "stage", "live", "verdict", "pairs", "proven", "for", "why")
    for view in answer["rollouts"]:
        table.add_row(
            view["model"],
            view["candidate"],
            stage_text(view),
            Text(f"{view['share']:g} %" + (f" of {view['scope']}" if view.get("scope") else "")),
            verdict_text(view),
            str(view["pairs"]),
            ", ".join(view["proven"]) or "-",
            age_text(view["since"]),
            Text(view["cause"]),
        )
    return table


def rollout_view(view: Json) -> RenderableType:
    """Everything about one rollout."""
    return Group(*_parts(view))


def stage_text(view: Json) -> Text:
    """`25 %`, `shadow (held)`, ..."""
    text = Text(stage_name(view["stage"]), style=_STAGES.get(view["stage"], "bold"))
    if view["is_held"]:
        text.append(" (held)", style="yellow")
    if view["frozen_cause"]:
        text.append(" (frozen)", style="magenta")
    if view.get("stale"):  # an older control process does not tell
        text.append(" (stale)", style="yellow")
    return text


def stage_name(stage: object) -> str:
    """A stage in words; one with a share of the traffic is a percentage."""
    text = str(stage).removesuffix(".0")
    return f"{text} %" if text.replace(".", "").isdigit() else text.replace("_", " ")


def verdict_text(view: Json) -> Text:
    """The verdict, or `undecided` before there is one."""
    verdict = view["verdict"]
    return Text(verdict or "undecided", style=_VERDICTS.get(verdict or "", ""))


def signal_heading(signal: Json) -> Text:
    """`displacement: evidence 12.4 of 333 ███░░ → rollback`."""
    share = progress(signal["evidence"], signal["boundary"])
    text = Text(signal["signal"], style="bold")
    text.append(f"  evidence against it {signal['evidence']:.3g} of {signal['boundary']:.4g} ", "")
    text.append(bar(share, 20), "red" if signal["is_tripped"] else "yellow")
    text.append(f" → {signal['action']}", "")
    if signal["signal"] == "failure" and signal.get("horizon"):
        text.append(f"  false trips: at most {signal['alpha']:.3g} within", "dim")
        text.append(f" {signal['horizon']:,} candidate requests", "dim")
    if signal["is_tripped"]:
        named = ", ".join(signal["culprits"])
        text.append(f"  reached{f': {named}' if named else ''}", "red")
    if signal["calibrating"]:
        text.append(f"  tolerance being read: {signal['calibrating']}", "cyan")
    text.append_text(latency_text(signal))
    return text


def grid(*columns: str) -> Table:
    """A table without lines."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _parts(view: Json) -> Iterator[RenderableType]:
    heading = Text(f"{view['model']} → {view['candidate']}", style="bold")
    heading.append(f"   run {view['run']}, epoch {view['epoch']}", style="dim")
    yield heading
    yield ladder(view)
    yield _facts(view)
    for signal in view["signals"]:
        yield Text("")
        yield signal_heading(signal)
        if signal["slices"] or signal["aggregate"]:
            yield _streams(signal, view)
    if view.get("channels"):
        yield Text("")
        yield channels_table(view["channels"])
    yield Text("")
    yield from _guard(view)
    yield from _proof(view)
    yield from _next(view)
    yield from _instrument(view)
    yield _diagnostics(view["diagnostics"])
    if view["last_rollback"]:
        yield rollback_text(view["last_rollback"])


def ladder(view: Json) -> Text:
    """The stages in order, the present one marked."""
    stages = [*(str(stage) for stage in view["spec"]["stages"]), "promoted"]
    names = [stage_name(stage) for stage in stages]
    here = stage_name(view["stage"])
    text = Text()
    for index, name in enumerate(names):
        text.append(" → " if index else "", style="dim")
        text.append(f"[{name}]" if name == here else name, "reverse" if name == here else "dim")
    if here not in names:
        text.append("   ")
        text.append(f"[{here}]", style=_STAGES.get(view["stage"], "bold"))
    return text


def _reference(view: Json) -> Iterator[tuple[str, Text]]:
    """The baseline before it, or the build that it is measured against by way of others."""
    graduated, reference = view.get("graduated"), view.get("measured_against")
    if graduated:
        until = clock(graduated["kept_until"])
        yield "before it", Text(f"{graduated['baseline']}, kept for `rollback` until {until}")
    if reference:
        yield "reference", Text(reference, style="yellow")


def _obstacles(view: Json) -> Iterator[tuple[str, Text]]:
    if view["held_cause"]:
        yield "held", Text(view["held_cause"], style="yellow")
    if view["frozen_cause"]:
        yield "frozen", Text(view["frozen_cause"], style="magenta")


def _facts(view: Json) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("stage", stage_text(view) + Text(f" for {age_text(view['since'])}"))
    table.add_row("why", Text(view["cause"]))
    only = f", only {view['scope']}" if view.get("scope") else ""
    kept = f"{view['share']:g} % of the slices that are not kept back{only}"
    table.add_row("live traffic", Text(kept))
    table.add_row("verdict", verdict_text(view))
    if view.get("verdict_awaits"):
        table.add_row("not final", Text(view["verdict_awaits"], style="yellow"))
    differing = _differing(view)
    if differing:
        table.add_row("differs in", differing)
    for name, text in (*_reference(view), *_obstacles(view)):
        table.add_row(name, text)
    table.add_row("proven", ", ".join(view["proven"]) or "no slice yet")
    for name in ("proven_live", "quarantined"):
        if view.get(name):
            table.add_row(name.replace("_", " "), ", ".join(view[name]))
    for name, how in (view.get("stale") or {}).items():
        told = f"{'all slices' if name == '*' else name}: proven on another workload: {how}"
        table.add_row("stale", Text(told, style="yellow"))
    return table


def _differing(view: Json) -> str:
    """The facts in which the candidate's build is another one than the baseline's."""
    builds: Mapping[str, Mapping[str, str]] = view.get("builds") or {}
    candidate = builds.get(view["candidate"], {})
    baseline = next((facts for name, facts in builds.items() if name != view["candidate"]), {})
    return ", ".join(
        f"{name} {now} (baseline {was})" if len(now + was) < _SHORT_FACT else name
        for name, (was, now) in differences(baseline, candidate).items()
    )


def _streams(signal: Json, view: Json) -> Table:
    """The streams of a signal; those of pairs in which the candidate answered are named `live`."""
    table = grid(
        "slice", "count", "mean", "interval", "tolerance", "against", "", "for", "", "proven"
    )
    streams = [stream for stream in signal["slices"] if stream["count"]]
    streams += [signal["aggregate"]] if signal["aggregate"] else []
    for stream in streams:
        name = stream["slice"]
        culprit = name in signal["culprits"] or name in view["quarantined"]
        label = f"{name}, live" if stream.get("answered_by") == "candidate" else name
        table.add_row(
            Text(label or "all", style="red" if culprit else "italic" if name is None else ""),
            str(stream["count"]),
            number_text(stream["mean"]),
            interval_text(stream),
            number_text(stream["tolerance"]),
            f"{stream['evidence']:.3g}",
            Text(bar(progress(stream["evidence"], signal["boundary"]), 8), style="yellow"),
            f"{stream['proof']:.3g}",
            Text(bar(progress(stream["proof"], signal["proof_boundary"]), 8), style="green"),
            Text("yes", style="green") if stream["is_proven"] else "no",
        )
    told = [effect_text(stream["effect"]) for stream in streams if stream.get("effect")]
    silent = [stream["slice"] for stream in signal["slices"] if not stream["count"]]
    if silent:
        told.append(f"nothing observed: {', '.join(silent)}")
    if told:
        table.caption = "\n".join(told)
        table.caption_justify = "left"
    return table


def _guard(view: Json) -> Iterator[RenderableType]:
    """The bound on false rollbacks, where other candidates are under guard at the same time."""
    own, together = view.get("guard_alpha"), view.get("model_alpha")
    if not own or not together or together <= own:
        return
    line = Text("false rollback ", style="bold")
    yield line.append(
        f"of this candidate: at most {own:.3g}; of any candidate of {view['model']} under guard:"
        f" at most {together:.3g}",
        "not bold",
    )


def _proof(view: Json) -> Iterator[RenderableType]:
    """The proof of the slices as one family; an older control process does not tell it."""
    proof = view.get("proof")
    if proof is None or view["next_stage"] is None:
        return
    line = Text("proof ", style="bold")
    line.append(f"of any slice falsely: at most {proof['alpha']:.3g} in this run", "not bold")
    runs = proof["earlier_runs"]
    if runs:
        line.append(f", after {runs} earlier run{'s' if runs > 1 else ''} of the same builds")
    yield line
    for each in proof["slices"]:
        if not each["is_proven"]:
            yield Text(f"  {each['slice']}: {each['proof']:.3g} of {each['boundary']:.4g}")


def _next(view: Json) -> Iterator[RenderableType]:
    if not view["gates"] or view["next_stage"] is None:
        return
    missing = [gate for gate in view["gates"] if not gate["is_met"]]
    line = Text(f"next: {stage_name(view['next_stage'])}", style="bold")
    yield line + Text("" if missing else "  all gates open", style="green")
    for gate in missing:
        yield Text(f"  waits for {gate['name']}: {gate['found']}, wanted {gate['wanted']}")


def _instrument(view: Json) -> Iterator[RenderableType]:
    instrument = view["instrument"]
    line = Text("instrument ", style="bold")
    line.append(
        "ok" if instrument["is_ok"] else "broken", "green" if instrument["is_ok"] else "red"
    )
    if instrument["detail"]:
        line.append(f": {instrument['detail']}")
    if instrument["last_self_test_at"]:
        gap = instrument["last_self_test_gap"]
        line.append(f"; self-test {age_text(instrument['last_self_test_at'])} ago")
        line.append(f", largest gap {gap:.3g} nats" if gap is not None else "")
    for signal in instrument["aa"]:
        whole = signal["aggregate"]
        if whole and whole["count"]:
            line.append(
                f"; A/A {signal['signal']} mean {number_text(whole['mean'])} of {whole['count']}"
            )
    yield line


def _diagnostics(diagnostics: Json) -> Text:
    parts = []
    if diagnostics["kl"] is not None:
        parts.append(f"KL {diagnostics['kl']:.2g}")
    if diagnostics["agreement"] is not None:
        parts.append(f"top-1 agreement {diagnostics['agreement']:.2%}")
    if diagnostics["divergence"] is not None:
        parts.append(f"first divergence at token {diagnostics['divergence']:.0f}")
    parts.append(f"{diagnostics['engine_seconds']:.1f} engine seconds")
    parts.append(f"missing {diagnostics['missing_ratio']:.1%}")
    parts.append(f"{diagnostics['repeats']} repeats")
    parts += [f"shed {reason} {count}" for reason, count in diagnostics["sheds"].items()]
    parts += [f"check {name} {count}" for name, count in diagnostics["failed_checks"].items()]
    return Text("measured ", style="bold") + Text(", ".join(parts), style="not bold")
