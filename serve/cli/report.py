"""Report of `penumbra status`: the supervisor's state, checked against the control process."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from penumbra.router.link.link_tls import verification
from penumbra.serve.quantization.errors import QuantizationError
from penumbra.serve.quantization.manifest import content_sha256, read_manifest
from penumbra.serve.supervisor.state import Phase, ProcessRecord, RunState, VariantRecord

_SECONDS = 3.0
_STRICT = ConfigDict(extra="forbid", frozen=True)


class Health(StrEnum):
    """Health of the whole installation."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    NOT_RUNNING = "not_running"


class VariantReport(BaseModel):
    """State of one variant."""

    model_config = _STRICT

    model: str
    variant: str
    url: str
    is_hosted: bool
    phase: Phase
    replicas: int | None
    scheme: str | None
    weights_sha256: str | None
    """Digest of the folder's content by its `penumbra.json`, if it has one."""
    message: str
    log: str | None


class ProcessReport(BaseModel):
    """State of one process; `epoch` is the routing table that a gateway has in force."""

    model_config = _STRICT

    name: str
    pid: int
    phase: Phase
    restarts: int
    url: str | None
    epoch: int | None
    log: str


class FlagReport(BaseModel):
    """Summary of one model's flag."""

    model_config = _STRICT

    model: str
    baseline: str
    is_killed: bool
    split: dict[str, float]
    rules: int
    pins: int


class AnswersReport(BaseModel):
    """Answers that clients of one model got in the last minute, over all gateways."""

    model_config = _STRICT

    model: str
    answers: int
    failed: int
    """5xx, broken off, or none that could be passed on."""
    failed_ratio: float
    refused: int
    """Refused by a variant: 3xx, 401, 403, 404 and 429."""
    refused_ratio: float


class Report(BaseModel):
    """State of the whole installation."""

    model_config = _STRICT

    health: Health
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    """Differences between builds and the configuration that fail no request."""
    pid: int
    config: str
    gateway_url: str
    admin_url: str
    epoch: int | None
    """The newest one; None while the control process does not answer."""
    variants: tuple[VariantReport, ...]
    processes: tuple[ProcessReport, ...]
    flags: tuple[FlagReport, ...]
    answers: tuple[AnswersReport, ...]
    """Models without an answer in the last minute are left out."""


def collect(state: RunState, admin_token: str) -> Report:
    """Ask the control process and compare its answers with the state.

    Args:
        state: State of a running supervisor.
        admin_token: For the control process.
    """
    flags, gateways, status = _ask_control(state, admin_token)
    epochs = {gateway["gateway"]: gateway["epoch"] for gateway in gateways.get("gateways", [])}
    newest = flags.get("epoch")
    problems = (*status.get("problems", ()), *_problems(state, newest, epochs))
    return Report(
        health=Health.DEGRADED if problems else Health.HEALTHY,
        problems=problems,
        warnings=tuple(text for record in state.variants for text in record.warnings),
        pid=state.pid,
        config=state.config,
        gateway_url=state.gateway_url,
        admin_url=state.admin_url,
        epoch=newest,
        variants=tuple(_variant(record) for record in state.variants),
        processes=tuple(_process(record, epochs) for record in state.processes),
        flags=tuple(_flag(view) for view in flags.get("flags", [])),
        answers=tuple(_answers(view) for view in status.get("models", [])),
    )


def print_report(report: Report, console: Console) -> None:
    """Print the report for a person."""
    colour = "green" if report.health is Health.HEALTHY else "yellow"
    console.print(f"[{colour}]{report.health}[/]  epoch {report.epoch}  {report.config}")
    for problem in report.problems:
        console.print(f"  {problem}", style="yellow", markup=False)
    for warning in report.warnings:
        console.print(f"  warning: {warning}", markup=False)
    variants = _table("variant", "is", "replicas", "scheme", "weights", "url")
    for variant in report.variants:
        variants.add_row(
            f"{variant.model}/{variant.variant}",
            variant.phase,
            "-" if variant.replicas is None else str(variant.replicas),
            variant.scheme or "-",
            (variant.weights_sha256 or "-")[:12],
            variant.url,
        )
    processes = _table("process", "is", "pid", "restarts", "epoch", "url")
    for process in report.processes:
        processes.add_row(
            process.name,
            process.phase,
            str(process.pid),
            str(process.restarts),
            "-" if process.epoch is None else str(process.epoch),
            process.url or "-",
        )
    flags = _table("model", "baseline", "killed", "split", "rules", "pins")
    for flag in report.flags:
        split = ", ".join(f"{name} {share:g} %" for name, share in flag.split.items())
        killed = "yes" if flag.is_killed else "no"
        flags.add_row(
            flag.model, flag.baseline, killed, split or "-", str(flag.rules), str(flag.pins)
        )
    for table in (variants, processes, flags, _answers_table(report.answers)):
        console.print(table)


def _answers_table(reports: tuple[AnswersReport, ...]) -> Table:
    table = _table("model", "answers in the last minute", "failed", "refused")
    for report in reports:
        failed, refused = (
            f"{count} ({ratio:.1%})" if count else "0"
            for count, ratio in (
                (report.failed, report.failed_ratio),
                (report.refused, report.refused_ratio),
            )
        )
        table.add_row(report.model, str(report.answers), failed, refused)
    return table


def _ask_control(state: RunState, token: str) -> tuple[dict[str, Any], ...]:
    """The answers of `_CONTROL_PATHS`, all empty if the control process does not answer."""
    headers = {"authorization": f"Bearer {token}"}
    try:
        with httpx.Client(
            base_url=f"{state.admin_url}/admin/v1",
            headers=headers,
            timeout=_SECONDS,
            trust_env=False,
            verify=verification(state.admin_url, state.control_tls),
        ) as client:
            answers = [_read(client, path) for path in _CONTROL_PATHS]
    except (httpx.HTTPError, ValueError):  # or no usable files to verify it by
        return tuple({} for _ in _CONTROL_PATHS)
    return tuple(answers)


_CONTROL_PATHS = ("/flags", "/gateways", "/status")


def _read(client: httpx.Client, path: str) -> dict[str, Any]:
    response = client.get(path)
    if response.status_code == httpx.codes.NOT_FOUND:
        return {}  # A control process that was started by an older version lacks the page.
    answer: dict[str, Any] = response.raise_for_status().json()
    return answer


def _problems(state: RunState, newest: int | None, epochs: dict[str, int]) -> Iterator[str]:
    if not state.is_ready:
        yield "still starting"
    for variant in state.variants:
        if variant.phase is not Phase.READY:
            yield f"variant {variant.model}/{variant.variant} is {variant.phase}"
        yield from variant.problems
    for process in state.processes:
        if process.phase is not Phase.READY:
            yield f"{process.name} is {process.phase}"
        if newest is not None and process.name.startswith("gateway-"):
            yield from _epoch_problems(process.name, newest, epochs.get(process.name))
    if newest is None:
        yield "the control process does not answer (gateways go on with what they have)"


def _epoch_problems(name: str, newest: int, epoch: int | None) -> Iterator[str]:
    if epoch is None:
        yield f"{name} is not connected to the control process"
    elif epoch < newest:
        yield f"{name} is at epoch {epoch}, the newest is {newest}"


def _variant(record: VariantRecord) -> VariantReport:
    return VariantReport(
        model=record.model,
        variant=record.variant,
        url=record.url,
        is_hosted=record.is_hosted,
        phase=record.phase,
        replicas=record.replicas,
        scheme=record.scheme,
        weights_sha256=_weights_sha256(record.source),
        message=record.message,
        log=record.log,
    )


def _weights_sha256(source: str | None) -> str | None:
    if source is None:
        return None
    try:
        return content_sha256(read_manifest(Path(source)))
    except QuantizationError:
        return None  # Penumbra did not make the folder, so nothing is claimed about it.


def _process(record: ProcessRecord, epochs: dict[str, int]) -> ProcessReport:
    return ProcessReport(
        name=record.name,
        pid=record.pid,
        phase=record.phase,
        restarts=record.restarts,
        url=record.url,
        epoch=epochs.get(record.name),
        log=record.log,
    )


def _flag(view: dict[str, Any]) -> FlagReport:
    flag = view["flag"]
    return FlagReport(
        model=view["model"],
        baseline=view["baseline"],
        is_killed=flag["killed"],
        split=flag["split"],
        rules=len(flag["rules"]),
        pins=len(flag["pins"]),
    )


def _answers(view: dict[str, Any]) -> AnswersReport:
    return AnswersReport(**{name: view[name] for name in AnswersReport.model_fields})


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading)
    return table
