"""Routing tables, flags and requests for tests: ready-made ones, and Hypothesis strategies."""

from typing import Any

from hypothesis import strategies as st

from penumbra.router.flags.evaluate import Context
from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.routing_table import (
    Flag,
    Match,
    ModelSnapshot,
    Pin,
    Rule,
    SliceRule,
    Snapshot,
    Variant,
)
from penumbra.router.flags.slices import OTHER
from penumbra.router.flags.validate import flag_problems

VARIANTS = ("full", "int8", "int4", "int3")
TENANTS = ("acme", "globex", "initech")
KEYS = ("alice", "bob", "carol")
SCRIPTS = ("latin", "greek", "cyrillic", "none")
SLICES = (
    SliceRule(name="greek", match=Match(scripts=("greek",))),
    SliceRule(name="json", match=Match(json_mode=True)),
)
SLICE_NAMES = ("greek", "json", OTHER)


def model(flag: Flag | None = None, variants: tuple[str, ...] = VARIANTS) -> ModelSnapshot:
    """A model with a baseline `full` and the given variants."""
    return ModelSnapshot(
        baseline="full",
        variants={name: Variant(url=f"http://{name}.test") for name in variants},
        slices=SLICES,
        flag=flag or Flag(),
    )


def snapshot(flag: Flag | None = None, epoch: int = 1) -> Snapshot:
    """A table with that one model, `demo`."""
    return Snapshot(epoch=epoch, models={"demo": model(flag)})


def chat(text: str, **fields: Any) -> RequestFeatures:
    """Features of a chat request with one user message."""
    return RequestFeatures.of({"messages": [{"role": "user", "content": text}], **fields})


def context(key: str = "alice", **fields: Any) -> Context:
    """A request for `demo`."""
    given: dict[str, Any] = {
        "model": "demo",
        "tenant": "acme",
        "headers": {},
        "targeting_key": key,
        "slice": OTHER,
        "request_id": "r-1",
        "features": chat("hello"),
    }
    return Context(**(given | fields))


shares = st.integers(0, 10_000).map(lambda points: points / 100)


@st.composite
def splits(draw: st.DrawFn) -> dict[str, float]:
    """Valid shares for some candidates."""
    left = 10_000
    split = {}
    for name in draw(st.lists(st.sampled_from(VARIANTS[1:]), unique=True)):
        points = draw(st.integers(0, left))
        left -= points
        split[name] = points / 100
    return split


def _some(values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), unique=True, max_size=2).map(tuple)


maybe = st.none() | st.booleans()
matches = st.builds(
    Match,
    tenants=_some(TENANTS),
    headers=st.dictionaries(st.sampled_from(["x-team", "x-tier"]), st.just(("a", "b")), max_size=1),
    slices=_some(SLICE_NAMES),
    route=_some(("chat", "responses", "embeddings")),
    modality=_some(("text", "image", "unknown")),
    json_mode=maybe,
    tools=maybe,
    prompt_chars_min=st.none() | st.integers(0, 20),
    prompt_chars_max=st.none() | st.integers(20, 60),
    scripts=_some(SCRIPTS),
    code=maybe,
    prompt_prefix=_some(("he", "hello", "Γειά", "")),
)


@st.composite
def rules(draw: st.DrawFn, name: str) -> Rule:
    """A rule that is valid if the rules before it allow it."""
    match = draw(matches)
    if draw(st.booleans()):
        return Rule(name=name, match=match, variant=draw(st.sampled_from(VARIANTS)))
    return Rule(name=name, match=match, split=draw(splits()))


pins = st.builds(
    Pin,
    kind=st.sampled_from(["tenant", "key"]),
    subject=st.sampled_from(TENANTS + KEYS),
    variant=st.sampled_from(VARIANTS),
)


@st.composite
def flags(draw: st.DrawFn) -> Flag:
    """A flag that `validate_flag` accepts for `model()`."""
    names = draw(st.sampled_from([(), ("r1",), ("r1", "r2")]))
    flag = Flag(
        killed=draw(st.booleans()),
        blocked=draw(_some(VARIANTS[1:])),
        quarantined=draw(_some(SLICE_NAMES)),
        quarantined_for=draw(
            st.dictionaries(st.sampled_from(VARIANTS[1:]), _some(SLICE_NAMES), max_size=2)
        ),
        pins=tuple(draw(st.lists(pins, max_size=2, unique_by=lambda pin: (pin.kind, pin.subject)))),
        rules=tuple(draw(rules(name)) for name in names),
        split=draw(splits()),
    )
    return flag if not list(flag_problems(model(), flag)) else flag.model_copy(update={"rules": ()})


bodies = st.fixed_dictionaries(
    {
        "messages": st.sampled_from(
            ["hello", "hello there, dear friend", "Γειά σου", "```\nx = 1\n```", "", "12"]
        ).map(lambda text: [{"role": "user", "content": text}])
    },
    optional={
        "tools": st.just([{"type": "function"}]),
        "response_format": st.just({"type": "json_object"}),
    },
)


@st.composite
def contexts(draw: st.DrawFn) -> Context:
    """Any request for `demo`."""
    return context(
        key=draw(st.sampled_from(KEYS) | st.text()),
        tenant=draw(st.sampled_from(TENANTS) | st.text()),
        headers=draw(
            st.dictionaries(st.sampled_from(["x-team", "x-tier"]), st.sampled_from("abc"))
        ),
        slice=draw(st.sampled_from(SLICE_NAMES)),
        features=RequestFeatures.of(draw(bodies), draw(st.sampled_from(["chat", "responses"]))),
        pin=draw(st.none() | st.sampled_from([*VARIANTS, "nosuch", ""])),
        may_pin=draw(st.booleans()),
        is_lease_fresh=draw(st.booleans()),
    )
