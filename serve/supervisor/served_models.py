"""Compares what every build says that it serves with the configuration: its `/v1/models`.

A wrong name is answered with 404 for every request, and a candidate with a shorter context leaves
long requests to the baseline; both would be seen only from the outside. A build that does not
answer yet is no error: it may be starting, and is compared when it answers.

Reading order: compare, ServedModels.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx
import msgspec

from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.router.secret_values import api_key_of
from penumbra.serve.hosting.plan import app_name
from penumbra.serve.supervisor.external import client_of
from penumbra.serve.supervisor.state import Phase, VariantRecord

PERIOD_SECONDS = 10.0
"""Interval between two comparisons: a server may be started anew with other arguments."""
_ANSWER_SECONDS = 2.0
_NAMES_SHOWN = 5
_REFUSALS = frozenset({401, 403})


class _Card(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Cards(msgspec.Struct):
    data: list[_Card]


_decode = msgspec.json.Decoder(_Cards).decode


@dataclass(frozen=True, slots=True)
class Served:
    """The answer of one build's `/v1/models`."""

    status: int
    lengths: Mapping[str, int | None] | None
    """Name -> longest context in tokens, None if it is not told; None if this is no list."""


def read_served(status: int, body: bytes) -> Served:
    """Read an answer of `/v1/models`."""
    try:
        cards = _decode(body).data if status == httpx.codes.OK else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        cards = None
    lengths = None if cards is None else {card.id: card.max_model_len for card in cards}
    return Served(status, lengths)


@dataclass(frozen=True, slots=True)
class Findings:
    """Texts about one variant, each with the words that mend it."""

    problems: tuple[str, ...] = ()
    """Requests to the variant fail as it is."""
    warnings: tuple[str, ...] = ()


def compare(
    record: VariantRecord, served: Served, baseline: tuple[str, Served | None], key_env: str | None
) -> Findings:
    """Compare what a variant serves with its model's public name and with the baseline.

    Args:
        record: The variant.
        served: What it says.
        baseline: Name of the model's baseline, and what that says, if it answers.
        key_env: The variable that holds the variant's API key, if one is configured.
    """
    who = f"variant {record.variant} at {record.url}"
    if served.lengths is None:
        return _without_list(who, served.status, key_env)
    if record.model not in served.lengths:
        names = [f"'{name}'" for name in served.lengths][:_NAMES_SHOWN]
        found = ", ".join(names) or "no model"
        text = f"{who} serves {found}, not '{record.model}'"
        return Findings((f"{text}: start it with --served-model-name {record.model}",))
    name, of_baseline = baseline
    own = served.lengths[record.model]
    longest = (of_baseline.lengths or {}).get(record.model) if of_baseline is not None else None
    if record.variant == name or own is None or longest is None or own >= longest:
        return Findings()
    text = f"{who} takes {own} tokens (max_model_len), the baseline {name} takes {longest}"
    return Findings((), (f"{text}: the baseline answers what is longer",))


def _without_list(who: str, status: int, key_env: str | None) -> Findings:
    if status not in _REFUSALS:
        text = f"{who} answers {status} without a list to /v1/models"
        return Findings((), (f"{text}: what it serves is not known; is it the server meant?",))
    if key_env is None:
        mend = "set api_key_env to the name of the variable that holds its key"
    else:
        mend = f"the key in {key_env} (api_key_env) is not set or not right"
    return Findings((f"{who} refuses /v1/models with {status}: {mend}",))


class ServedModels:
    """Keeps the findings in the records of all variants.

    Args:
        records: Application -> the variant's record; findings are kept up to date here.
        spec: The configuration.
        environment: Variables, for the API keys of external servers.
        on_change: Called after every change of a record.
    """

    def __init__(
        self,
        records: dict[str, VariantRecord],
        spec: PenumbraSpec,
        environment: Mapping[str, str],
        on_change: Callable[[], None],
    ) -> None:
        self._records = records
        self._on_change = on_change
        self._environment = environment
        self._baselines = {name: model.baseline for name, model in spec.models.items()}
        self._key_envs = {
            app_name(name, variant): spec_of.api_key_env
            for name, model in spec.models.items()
            for variant, spec_of in model.variants.items()
        }

    def know(self, baselines: Mapping[str, str]) -> None:
        """Take note of models that were added, or have another baseline; model -> baseline."""
        self._baselines.update(baselines)

    async def run(self) -> None:
        """Compare every `PERIOD_SECONDS`, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            await self.compare()

    async def compare(self) -> None:
        """Ask all builds that may answer, and update the records; takes two seconds at most."""
        apps = [*self._records]  # variants may come and go while these answer
        answers = await asyncio.gather(*(self._ask(app) for app in apps))
        served = dict(zip(apps, answers, strict=True))
        is_changed = False
        for app, record in self._records.items():
            found = self._findings(record, served)
            update = {"problems": found.problems, "warnings": found.warnings}
            if (record.problems, record.warnings) != (found.problems, found.warnings):
                self._records[app] = record.model_copy(update=update)
                is_changed = True
        if is_changed:
            self._on_change()

    def _findings(self, record: VariantRecord, served: Mapping[str, Served | None]) -> Findings:
        app = app_name(record.model, record.variant)
        own, name = served.get(app), self._baselines.get(record.model)
        if own is None or name is None:
            return Findings()
        baseline = name, served.get(app_name(record.model, name))
        return compare(record, own, baseline, self._key_envs.get(app))

    async def _ask(self, app: str) -> Served | None:
        """Ask one build; None if it does not answer."""
        record = self._records[app]
        if record.is_hosted and record.phase is not Phase.READY:
            return None
        key = api_key_of(self._environment, self._key_envs.get(app))
        headers = {"authorization": f"Bearer {key}"} if key else {}
        with contextlib.suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS), client_of(record) as client:
                answer = await client.get(f"{record.url}/v1/models", headers=headers)
                return read_served(answer.status_code, answer.content)
        return None
