"""Renders flags and their history for a terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

Json = Mapping[str, Any]


def flags_table(answer: Json) -> Table:
    """All flags, one a line."""
    table = _table("model", "baseline", "split", "rules", "pins", "stopped", "changed in epoch")
    for view in answer["flags"]:
        flag = view["flag"]
        table.add_row(
            view["model"],
            view["baseline"],
            split_text(flag["split"], view["baseline"]),
            str(len(flag["rules"])),
            str(len(flag["pins"])),
            stops_text(flag),
            str(view["changed_epoch"]),
        )
    return table


def flag_table(view: Json) -> Table:
    """One flag, in the order in which it is evaluated."""
    flag, baseline = view["flag"], view["baseline"]
    table = Table(title=f"{view['model']} at epoch {view['epoch']}", show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row(
        "variants", ", ".join(_mark_baseline(name, baseline) for name in view["variants"])
    )
    table.add_row("slices", ", ".join(view["slices"]))
    table.add_row("stopped", stops_text(flag))
    for pin in flag["pins"]:
        table.add_row("pin", f"{pin['kind']} {pin['subject']} → {pin['variant']}")
    for rule in flag["rules"]:
        outcome = rule["variant"] or split_text(rule["split"], baseline)
        table.add_row(f"rule {rule['name']}", f"{match_text(rule['match'])} → {outcome}")
    table.add_row("split", split_text(flag["split"], baseline))
    return table


def history_table(answer: Json) -> Table:
    """Changes, oldest first."""
    table = _table("epoch", "when", "who", "what", "model", "change", "why")
    for item in answer["items"]:
        table.add_row(
            str(item["epoch"]),
            item["at"][:19].replace("T", " "),
            who_text(item),
            item["kind"],
            item["model"] or ", ".join(item["models"] or ()),
            item.get("access") or "; ".join(differences(item["before"], item["after"])),
            item["reason"],
        )
    return table


def who_text(item: Json) -> str:
    """The one who made a change: an identity with its role; else a claim, with the token's role."""
    role = item.get("role")
    if role is None:
        return str(item["actor"])
    if item.get("identity") is None:
        return f"{item['actor']} ({role} token)"
    note = item.get("note")
    return f"{item['identity']} ({role}{f', as {note}' if note else ''})"


def gateways_table(answer: Json) -> Table:
    """The connected gateways."""
    table = _table("gateway", "pid", "epoch", "connected", "last change after", "no evidence of")
    for view in answer["gateways"]:
        took = view["last_propagation_ms"]
        table.add_row(
            view["gateway"],
            str(view["pid"]),
            f"{view['epoch']} of {answer['epoch']}",
            f"{view['connected_seconds']:.0f} s",
            view["refusal"] or ("" if took is None else f"{took:.1f} ms"),
            "; ".join(f"{', '.join(names)} ({model})" for model, names in view["stopped"].items()),
        )
    return table


def outcome_text(answer: Json) -> str:
    """The result of a change, in one line."""
    epoch, gateways = answer["epoch"], answer["gateways"]
    if not answer["changed"]:
        return f"nothing to change: epoch {epoch} says so already"
    reached = f"{gateways['acknowledged']}/{gateways['connected']} gateways"
    if not gateways["connected"]:
        return f"epoch {epoch} durable, no gateway connected"
    if answer["propagation_ms"] is None:
        return f"epoch {epoch} durable, live on {reached} so far (penumbra flags gateways)"
    return f"epoch {epoch} durable, live on {reached} after {answer['propagation_ms']:.1f} ms"


def split_text(split: Mapping[str, float], baseline: str) -> str:
    """`int8 30 %, full 70 %`."""
    shares = [(name, share) for name, share in split.items() if share > 0]
    rest = 100 - sum(share for _, share in shares)
    return ", ".join(f"{name} {share:g} %" for name, share in [*shares, (baseline, round(rest, 2))])


def stops_text(flag: Json) -> str:
    """Reasons that keep traffic on the baseline."""
    stops = ["killed"] if flag["killed"] else []
    stops += [f"{name} blocked by the guard" for name in flag["blocked"]]
    stops += [f"slice {name} quarantined" for name in flag["quarantined"]]
    for candidate, names in flag.get("quarantined_for", {}).items():
        stops += [f"slice {name} quarantined for {candidate}" for name in names]
    return ", ".join(stops) or "nothing"


def match_text(match: Json) -> str:
    """The conditions that are set."""
    texts = []
    for name, value in match.items():
        if value in (None, [], {}):
            continue
        if isinstance(value, dict):
            texts += [f"{header}: {'|'.join(values)}" for header, values in value.items()]
        else:
            shown = "|".join(map(str, value)) if isinstance(value, list) else str(value).lower()
            texts.append(f"{name} {shown}")
    return ", ".join(texts) or "all requests"


def differences(before: Json | None, after: Json | None) -> Iterable[str]:
    """Differences between two flags, field by field."""
    if before is None or after is None:
        return
    for name in after:
        if before.get(name) != after[name]:
            yield f"{name} {_short(before.get(name))} → {_short(after[name])}"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {share:g}" for name, share in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_item, value)) or "none"
    return str(value).lower()


def _item(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return str(value.get("name") or f"{value['subject']} → {value['variant']}")


def _mark_baseline(name: str, baseline: str) -> str:
    return f"{name} (baseline)" if name == baseline else name


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
