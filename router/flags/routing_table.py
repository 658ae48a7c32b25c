"""The routing table of one epoch: everything that decides a request, as one immutable value.

The control process makes it, and every gateway process swaps it in with one assignment. A decision
can be replayed from it: `flags.evaluate(snapshot, context)` needs nothing else. Pure.

Fields at their default value are not sent to the gateways, so that an older gateway takes a table
that does not use a newer field. A default must therefore never change.

Reading order: Snapshot, ModelSnapshot, Flag, Rule, Match, Watch.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from penumbra.router.flags.tenant_keys import KeySettings

NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
"""Pattern of the names of variants, slices and rules: they end up in headers, labels and URLs."""

HEADER_NAME = r"^[a-z0-9!#$%&'*+^_`|~-]{1,64}$"
"""Pattern of a header's name: in lower case, without dots."""
StickyHeader = Annotated[
    str, Field(pattern=HEADER_NAME, json_schema_extra={"wanted": "a header name in lower case"})
]

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Match(BaseModel):
    """Conditions on one request; all that are given must hold, an empty one always does."""

    model_config = _STRICT

    tenants: tuple[str, ...] = ()
    """Any of these tenants."""
    headers: dict[str, tuple[str, ...]] = {}
    """Header name in lower case -> any of these values."""
    slices: tuple[str, ...] = ()
    """Any of these slices (flag rules only; a slice cannot be defined by slices)."""
    route: tuple[str, ...] = ()
    """Any of these routes, by name (`penumbra.router.flags.request_routes`)."""
    modality: tuple[str, ...] = ()
    """Any of these modalities of the prompt (`penumbra.router.flags.modality`)."""
    json_mode: bool | None = None
    """The request asks for JSON (`response_format` other than text, or a guided grammar)."""
    tools: bool | None = None
    """The request offers tools."""
    prompt_chars_min: int | None = Field(default=None, ge=0)
    prompt_chars_max: int | None = Field(default=None, ge=0)
    """Bounds on the characters of all prompt text, both inclusive."""
    scripts: tuple[str, ...] = ()
    """The dominant script of the last user text is one of these: latin, greek, cyrillic, ..."""
    code: bool | None = None
    """The last user text holds program code (a fenced block or dense code punctuation)."""
    prompt_prefix: tuple[str, ...] = ()
    """The last user text begins with one of these."""


class Scope(BaseModel):
    """The requests that a rollout is about; all conditions that are given must hold."""

    model_config = _STRICT

    tenants: tuple[str, ...] = ()
    """Any of these tenants."""
    headers: dict[str, tuple[str, ...]] = {}
    """Header name in lower case -> any of these values."""
    slices: tuple[str, ...] = ()
    """Any of these slices."""

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if not self.text:
            raise ValueError("found no condition, wanted tenants, headers or slices, or no scope")
        return self

    def match(self) -> Match:
        """The same conditions, as rules have them."""
        return Match(tenants=self.tenants, headers=self.headers, slices=self.slices)

    def has_slice(self, name: str) -> bool:
        """Whether a request of this slice may be in the scope."""
        return not self.slices or name in self.slices

    @property
    def text(self) -> str:
        """The conditions in words: `slices facts|code, tenants acme`."""
        parts = [("slices", self.slices), ("tenants", self.tenants), *self.headers.items()]
        return ", ".join(f"{name} {'|'.join(values)}" for name, values in parts if values)


class SliceRule(BaseModel):
    """A named part of the traffic; the first rule that matches names the request's slice."""

    model_config = _STRICT

    name: str = Field(pattern=NAME)
    match: Match


class Rule(BaseModel):
    """A targeting rule: the requests that match get `variant`, or take part in a split."""

    model_config = _STRICT

    name: str = Field(pattern=NAME)
    match: Match
    variant: str | None = None
    """Serve this variant to every request that matches ..."""
    split: dict[str, float] | None = None
    """... or split them: candidate -> percent in [0, 100]; the rest gets the baseline."""


class Pin(BaseModel):
    """An operator's pin of one subject to one variant."""

    model_config = _STRICT

    kind: Literal["tenant", "key"]
    """`tenant`: the authenticated tenant; `key`: the targeting key (user or session id)."""
    subject: str = Field(min_length=1, max_length=256)
    variant: str


class Flag(BaseModel):
    """The assignment of requests to one model's variants. Operators and the guard change it."""

    model_config = _STRICT

    killed: bool = False
    """Kill switch: every request gets the baseline."""
    blocked: tuple[str, ...] = ()
    """Candidates that the guard took out of service."""
    quarantined: tuple[str, ...] = ()
    """Slices that stay on the baseline, whatever candidate would answer in them. Set by hand."""
    quarantined_for: dict[str, tuple[str, ...]] = {}
    """Candidate -> slices in which it may not answer; the baseline does in its place. Set by the
    candidate's rollout. A gateway of before this field gets them in `quarantined`
    (`penumbra.router.link.older_gateways`)."""
    pins: tuple[Pin, ...] = ()
    rules: tuple[Rule, ...] = ()
    """In order; the first that matches decides."""
    split: dict[str, float] = {}
    """Candidate -> percent in [0, 100] of all other requests; the rest gets the baseline."""

    def closed_to(self, candidate: str) -> tuple[str, ...]:
        """The slices in which a candidate may not answer."""
        return tuple(dict.fromkeys((*self.quarantined, *self.quarantined_for.get(candidate, ()))))

    @property
    def quarantined_for_any(self) -> tuple[str, ...]:
        """The slices in which at least one candidate may not answer."""
        own = (name for names in self.quarantined_for.values() for name in names)
        return tuple(dict.fromkeys((*self.quarantined, *own)))

    @property
    def in_traffic(self) -> set[str]:
        """Variants that are given requests by the split or by a rule, blocked ones included."""
        found = {name for name, percent in self.split.items() if percent > 0}
        for rule in self.rules:
            found |= {rule.variant} if rule.variant else set(rule.split or ())
        return found


class Variant(BaseModel):
    """The address of one servable build."""

    model_config = _STRICT

    url: str
    """Base URL, http or https; `/v1/...` is appended, also where it ends in `/v1` already."""
    api_key_env: str | None = None
    """Environment variable of the gateway that holds the upstream's API key."""
    ca_file: str | None = None
    """File of the gateway's machine with the certificates that sign an https server's; by default
    the system's."""


Cluster = Literal["conversation", "prompt"]
"""Requests whose answers depend on each other: those of one conversation, known by its root, or
only those with the same prompt."""


class Watch(BaseModel):
    """The observation of one candidate while a rollout watches it. Set by the rollout."""

    model_config = _STRICT

    candidate: str
    run: str
    """Id of the run that the observations belong to."""
    mirror: float = Field(default=0.0, ge=0, le=1)
    """Share of the requests that are mirrored; by a hash of the gateway's own id."""
    mirror_slices: dict[str, float] = {}
    """Slice -> its own share, in [0, 1]."""
    generate: float = Field(default=0.3, ge=0, le=1)
    """Share of the mirrored requests on which the other arm also generates, for the harm checks."""
    aa: float = Field(default=0.05, ge=0, le=1)
    """Share of the mirrored requests that also compare the baseline with itself."""
    aa_slices: dict[str, float] = {}
    """Slice -> its own share of these, in [0, 1]."""
    cluster: Cluster = "conversation"
    """Requests of which one is compared."""
    failure_tolerance: float = Field(default=0.005, gt=0, lt=1)
    """Share of failed candidate requests that is within tolerance; a gateway trips by itself."""
    failure_alpha: float | None = Field(default=0.002, gt=0, lt=1)
    """Probability of a false trip of one gateway; None: it counts failures and never trips."""
    failure_requests: int = Field(default=100_000, ge=1)
    """Candidate requests of one gateway for which this probability holds."""
    latency_factor: float = Field(default=1.5, gt=0)
    """A live answer counts as late above this times the baseline's recent p90."""
    released: dict[str, tuple[str, ...]] | None = None
    """Slice -> channels (`penumbra.router.flags.released_channels`) whose requests may go to the
    candidate by the split. None, as from an older control process: text by chat and completions."""
    scope: Scope | None = None
    """The requests that may go to the candidate by the split, and be mirrored for it; None: all. A
    gateway of before this field gets neither share nor mirroring of a candidate with a scope."""
    in_flight: Literal["finish", "continue"] = "finish"
    """Effect of a rollback on candidate streams under way: they end by themselves, or the baseline
    continues them."""


class ModelSnapshot(BaseModel):
    """One public model name: its builds, its slices, its flag."""

    model_config = _STRICT

    baseline: str
    variants: dict[str, Variant]
    slices: tuple[SliceRule, ...] = Field(default=(), max_length=20)
    flag: Flag = Flag()
    sticky_headers: tuple[StickyHeader, ...] = Field(default=(), max_length=8)
    """Headers whose value is the targeting key of a request that names no user otherwise."""
    watches: tuple[Watch, ...] = ()
    """One for each candidate under a rollout."""
    places: dict[str, Annotated[int, Field(ge=0)]] = {}
    """Candidate -> its place in splits (`penumbra.router.flags.bucketing`), where that does not
    follow from the order of the variants. Set by the control process."""


class Snapshot(BaseModel):
    """The routing table of one epoch."""

    model_config = _STRICT

    epoch: int = Field(ge=0)
    """Version; grows with every durable change. 0 is the table a gateway boots with."""
    models: dict[str, ModelSnapshot]
    keys: tuple[KeySettings, ...] | None = None
    """API keys in force; None: the control process tells of none, and each gateway has those of its
    own file. They travel beside the table (`penumbra.router.link.messages.Push`), and to gateways
    only."""
