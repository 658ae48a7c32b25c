import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from openfeature.contrib.tools.flagd.core.flagd_core import FlagdCore
from openfeature.evaluation_context import EvaluationContext

from penumbra.router.flags.evaluate import Context, compile_model, evaluate
from penumbra.router.flags.flagd_export import to_flagd
from penumbra.router.flags.flagd_import import FlagdInvalid, from_flagd
from penumbra.router.flags.routing_table import Flag, Match, Pin, Rule
from tests.support.routing_tables import context, contexts, flags, model

RICH = Flag(
    quarantined=("greek",),
    pins=(
        Pin(kind="key", subject="alice", variant="int4"),
        Pin(kind="tenant", subject="acme", variant="int8"),
    ),
    rules=(
        Rule(name="json-waits", match=Match(slices=("json",)), variant="full"),
        Rule(name="half", match=Match(tenants=("globex",)), split={"int3": 50}),
    ),
    split={"int8": 30, "int4": 0.01},
)


def flagd_variant(document: dict[str, Any], request: Context, headers: dict[str, str]) -> str:
    """Evaluate an exported flag by the OpenFeature flagd provider's own evaluator."""
    core = FlagdCore()
    core.set_flags(json.dumps(document))
    attributes = {
        "tenant": request.tenant,
        "slice": request.slice,
        "route": request.features.route,
        "modality": request.features.modality,
        "headers": headers,
        "json_mode": request.features.json_mode,
        "tools": request.features.tools,
        "prompt_chars": request.features.prompt_chars,
        "script": request.features.script,
        "code": request.features.code,
        "prompt": request.features.text,
    }
    found = core.resolve_string_value(
        "demo", "default-of-the-caller", EvaluationContext(request.targeting_key, attributes)
    )
    return found.value


def test_flagd_puts_ten_thousand_keys_where_evaluate_does() -> None:
    flag = Flag(split={"int8": 30, "int4": 12.34, "int3": 0.5})
    compiled = compile_model("demo", model(flag))
    core = FlagdCore()
    core.set_flags(json.dumps(to_flagd({"demo": model(flag)})))
    counts = dict.fromkeys(("full", "int8", "int4", "int3"), 0)
    for number in range(10_000):
        key = f"user-{number}"
        theirs = core.resolve_string_value("demo", "", EvaluationContext(key)).value
        assert theirs == evaluate(compiled, context(key)).variant
        counts[theirs] += 1
    assert min(counts.values()) > 0


@settings(max_examples=300)
@given(flags(), contexts())
def test_flagd_decides_as_evaluate_does(flag: Flag, request: Context) -> None:
    request.pin = None
    request.is_lease_fresh = True
    document = to_flagd({"demo": model(flag)})
    ours = evaluate(compile_model("demo", model(flag)), request)
    assert isinstance(request.headers, dict)
    assert flagd_variant(document, request, request.headers) == ours.variant


@given(flags())
def test_what_is_exported_is_imported_again(flag: Flag) -> None:
    document = json.loads(json.dumps(to_flagd({"demo": model(flag)})))
    imported = from_flagd(document, {"demo": model(flag)})["demo"]
    # Shares of nothing, and the order of pins of two kinds, have no place in flagd JSON.
    assert _canonical(imported) == _canonical(flag)


def _canonical(flag: Flag) -> dict[str, Any]:
    dump = flag.model_dump()
    dump["pins"] = sorted(dump["pins"], key=lambda pin: pin["kind"] != "key")
    dump["split"] = _shares(dump["split"])
    for rule in dump["rules"]:
        if rule["split"] is not None:
            shares = _shares(rule["split"])
            # A rule that gives nothing away, or everything to one, is a rule with that variant.
            whole = [name for name, share in shares.items() if share == 100]
            rule["variant"] = (whole or ["full"])[0] if whole or not shares else None
            rule["split"] = None if rule["variant"] else shares
    return dump


def _shares(split: dict[str, float]) -> dict[str, float]:
    return {name: round(share, 2) for name, share in split.items() if share > 0}


def test_a_plain_flag_written_by_hand_is_read() -> None:
    document = {
        "flags": {
            "demo": {
                "state": "ENABLED",
                "variants": {"full": "full", "int8": "int8"},
                "defaultVariant": "full",
                "targeting": {
                    "if": [
                        {"==": [{"var": "tenant"}, "acme"]},
                        "int8",
                        {"fractional": [["int8", 1], ["full", 3]]},
                    ]
                },
            }
        }
    }
    flag = from_flagd(document, {"demo": model(Flag(blocked=("int4",)))})["demo"]
    assert flag == Flag(
        blocked=("int4",),
        rules=(Rule(name="rule-1", match=Match(tenants=("acme",)), variant="int8"),),
        split={"int8": 25.0},
    )


def test_a_disabled_flag_is_a_killed_one() -> None:
    document = to_flagd({"demo": model(RICH)})
    document["flags"]["demo"]["state"] = "DISABLED"
    assert from_flagd(document, {"demo": model()})["demo"].killed


def targeting(logic: Any) -> dict[str, Any]:
    return {"flags": {"demo": {"defaultVariant": "full", "targeting": logic}}}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([], "wanted a flagd document"),
        ({"flags": {"nosuch": {}}}, "wanted one of demo"),
        ({"flags": {"demo": 1}}, "as an object"),
        ({"flags": {"demo": {"defaultVariant": "int8"}}}, "wanted full"),
        (targeting({"sem_ver": [1, "=", 2]}), "wanted a variant or a `fractional`"),
        (targeting({"fractional": ["x", ["int8", 1]]}), "always on the flag key"),
        (targeting({"fractional": [["int8", 1.5]]}), "an integer"),
        (targeting({"fractional": [["int8", 0]]}), "positive sum"),
        (targeting({"fractional": [[{"var": "x"}, 1]]}), "the name of a variant"),
        (targeting({"if": [True, "int8"]}), "without a last `else`"),
        (targeting({"if": [{">": [{"var": "age"}, 3]}, "int8", "full"]}), "no rule here can"),
        (
            targeting(
                {
                    "if": [
                        {
                            "and": [
                                {"==": [{"var": "tenant"}, "a"]},
                                {"==": [{"var": "tenant"}, "b"]},
                            ]
                        },
                        "int8",
                        "full",
                    ]
                }
            ),
            "two conditions on tenants",
        ),
        (targeting({"if": [{"starts_with": [{"var": "x"}, "y"]}, "int8", "full"]}), "on prompt"),
        (targeting({"if": [{"==": [{"var": "code"}, "yes"]}, "int8", "full"]}), "code"),
    ],
)
def test_what_cannot_be_expressed_is_refused(document: Any, expected: str) -> None:
    with pytest.raises(FlagdInvalid, match=re.escape(expected)):
        from_flagd(document, {"demo": model()})
