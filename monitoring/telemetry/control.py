"""Metrics of the control process: rollouts, evidence, the spread of changes. Pure.

Gauges of a run begin anew with it; counters of rollouts are counted from the stored history, so
they survive a restart.
"""

from penumbra.monitoring.telemetry import labels as of
from penumbra.monitoring.telemetry.metric import (
    FAST_BUCKETS_SECONDS,
    Kind,
    Label,
    Metric,
    Process,
    Unit,
)

_ROLLOUT = (of.MODEL, of.CANDIDATE)
_STREAM = (of.MODEL, of.CANDIDATE, of.SIGNAL, of.STREAM)


def _counter(name: str, text: str, *labels: Label) -> Metric:
    return Metric(name, Kind.COUNTER, text, Process.CONTROL, labels)


def _gauge(name: str, text: str, *labels: Label, unit: Unit = Unit.NUMBER) -> Metric:
    return Metric(name, Kind.GAUGE, text, Process.CONTROL, labels, unit)


def _durations(name: str, text: str, *labels: Label) -> Metric:
    return Metric(
        name, Kind.HISTOGRAM, text, Process.CONTROL, labels, Unit.SECONDS, FAST_BUCKETS_SECONDS
    )


# Rollouts

PHASE = _gauge("penumbra_rollout_phase", "Where a rollout stands.", *_ROLLOUT, of.PHASE)
SHARE = _gauge(
    "penumbra_rollout_share_ratio",
    "Share of the live traffic that the rollout's stage stands for; 0 unless it is live.",
    *_ROLLOUT,
    unit=Unit.RATIO,
)
SINCE = _gauge(
    "penumbra_rollout_since_timestamp_seconds",
    "When the rollout's stage began, in Unix time.",
    *_ROLLOUT,
    unit=Unit.SECONDS,
)
HELD = _gauge("penumbra_rollout_held", "1 while the rollout is held.", *_ROLLOUT)
FROZEN = _gauge(
    "penumbra_rollout_frozen",
    "1 while nothing is promoted because the instrument is broken.",
    *_ROLLOUT,
)
VERDICT = _gauge("penumbra_rollout_verdict", "What the evidence says.", *_ROLLOUT, of.VERDICT)
SLICE_STATE = _gauge(
    "penumbra_rollout_slice_state", "What is known of a slice.", *_ROLLOUT, of.SLICE, of.SLICE_STATE
)
PROOF_STALE = _gauge(
    "penumbra_rollout_proof_stale",
    "1 while the workload has left what a slice, or all of them (`*`), was proven on.",
    *_ROLLOUT,
    of.STREAM,
)
RUN_PAIRS = _gauge(
    "penumbra_rollout_pairs", "Pairs that the current run has bet on.", *_ROLLOUT, of.SLICE
)
CHANGES = _counter(
    "penumbra_rollout_changes_total",
    "Durable changes of a rollout since the store began.",
    *_ROLLOUT,
    of.CHANGE,
)
ROLLBACKS = _counter(
    "penumbra_rollbacks_total",
    "Rollbacks since the store began, by who decided.",
    *_ROLLOUT,
    of.ACTOR,
)
LAST_ROLLBACK = _gauge(
    "penumbra_last_rollback_timestamp_seconds",
    "When the candidate was rolled back last, in Unix time.",
    *_ROLLOUT,
    unit=Unit.SECONDS,
)
ROLLBACK_SECONDS = _durations(
    "penumbra_rollback_duration_seconds", "How long rollbacks took, part by part.", of.PART
)
FLAG_SHARE = _gauge(
    "penumbra_flag_share_ratio",
    "Share of a model's default split that a variant has, blocks and the kill switch applied.",
    of.MODEL,
    of.VARIANT,
    of.ROLE,
    unit=Unit.RATIO,
)
QUARANTINED = _gauge(
    "penumbra_flag_quarantined",
    "1 for a slice that stays on the baseline for at least one candidate.",
    of.MODEL,
    of.SLICE,
)
KILLED = _gauge("penumbra_flag_killed", "1 while the kill switch is on.", of.MODEL)
VARIANT_INFO = Metric(
    "penumbra_variant_info",
    Kind.INFO,
    "A configured variant and its fingerprint.",
    Process.CONTROL,
    (of.MODEL, of.VARIANT, of.ROLE, of.FINGERPRINT),
)

# Evidence: the numbers that act

GUARDRAIL_EVIDENCE = _gauge(
    "penumbra_guardrail_log_evidence_nats",
    "Natural logarithm of a guardrail's evidence against the candidate.",
    *_ROLLOUT,
    of.SIGNAL,
    unit=Unit.NATS,
)
GUARDRAIL_BOUNDARY = _gauge(
    "penumbra_guardrail_log_boundary_nats",
    "Where the guardrail acts: ln(1/alpha) of its part of the rollout's alpha.",
    *_ROLLOUT,
    of.SIGNAL,
    unit=Unit.NATS,
)
GUARDRAIL_TRIPPED = _gauge(
    "penumbra_guardrail_tripped",
    "1 once the guardrail has acted in this run.",
    *_ROLLOUT,
    of.SIGNAL,
)
OBSERVATIONS = _gauge(
    "penumbra_signal_observations", "Observations that were bet on in this run.", *_STREAM
)
MEAN = _gauge(
    "penumbra_signal_mean_ratio", "Mean of the signal in this run.", *_STREAM, unit=Unit.RATIO
)
EXCESS = _gauge(
    "penumbra_signal_excess_ratio",
    "Mean of the signal less that of the baseline against itself (A/A), where both are known.",
    *_STREAM,
    unit=Unit.RATIO,
)
AA_MEAN = _gauge(
    "penumbra_signal_aa_mean_ratio",
    "Mean of the signal of the baseline against itself in this run.",
    *_STREAM,
    unit=Unit.RATIO,
)
TOLERANCE = _gauge(
    "penumbra_signal_tolerance_ratio",
    "Largest mean of the signal that is within tolerance.",
    *_STREAM,
    unit=Unit.RATIO,
)
LOWER = _gauge(
    "penumbra_signal_lower_ratio",
    "Lower end of the mean's anytime-valid interval.",
    *_STREAM,
    unit=Unit.RATIO,
)
UPPER = _gauge(
    "penumbra_signal_upper_ratio",
    "Upper end of the mean's anytime-valid interval.",
    *_STREAM,
    unit=Unit.RATIO,
)
EVIDENCE = _gauge(
    "penumbra_signal_log_evidence_nats",
    "Natural logarithm of one stream's evidence; the guardrail's is a weighted average of these.",
    *_STREAM,
    unit=Unit.NATS,
)
PROOF = _gauge(
    "penumbra_signal_log_proof_nats",
    "Natural logarithm of the evidence that a stream is within tolerance.",
    *_STREAM,
    unit=Unit.NATS,
)
PROOF_BOUNDARY = _gauge(
    "penumbra_proof_log_boundary_nats",
    "Where one slice alone is proven: ln(1/alpha of proof in this run).",
    *_ROLLOUT,
    unit=Unit.NATS,
)
INSTRUMENT_OK = _gauge(
    "penumbra_instrument_ok",
    "0 while the A/A detector, a self-test or a scorer test says that the measuring is broken.",
    *_ROLLOUT,
)

# The control process itself

EPOCH = _gauge("penumbra_control_epoch", "Newest epoch of the store.")
GATEWAYS = _gauge("penumbra_control_gateways", "Connected gateways.")
COMPARATORS = _gauge("penumbra_control_comparators", "Connected comparators.")
OUTDATED_GATEWAYS = _gauge(
    "penumbra_control_outdated_gateways",
    "Connected gateways that have not acknowledged the newest epoch.",
)
GATEWAY_EPOCH = _gauge(
    "penumbra_gateway_epoch",
    "Newest epoch that a connected gateway has put into force.",
    of.GATEWAY,
)
CONTROL_CHANGES = _counter(
    "penumbra_control_changes_total", "Durable changes since the store began, by kind.", of.KIND
)
STORE_FAILURES = _counter(
    "penumbra_control_store_failures_total", "Changes that the store did not take."
)
SET_ASIDE = _gauge(
    "penumbra_control_events_set_aside",
    "Models that get the baseline alone because an event of theirs cannot be read.",
)
REPORTS_REFUSED = _counter(
    "penumbra_control_reports_refused_total",
    "Reports of gateways and comparators that cannot be counted as evidence; the log says why.",
)
LOGINS_REFUSED = _counter(
    "penumbra_control_logins_refused_total",
    "Requests and links that were refused for their token.",
    of.SURFACE,
    of.LOGIN_REASON,
)
PROPAGATION = _durations(
    "penumbra_control_propagation_seconds",
    "From the durable commit of a change to the last gateway's acknowledgement.",
)
INCOMPLETE = _counter(
    "penumbra_control_incomplete_changes_total",
    "Changes that a connected gateway did not acknowledge in time.",
)
GUARD_AGE = _gauge(
    "penumbra_guard_age_seconds",
    "Age of the oldest sign of life that a model's guard needs; leases end when it reaches"
    " penumbra_guard_lease_seconds.",
    of.MODEL,
    unit=Unit.SECONDS,
)
GUARD_LEASE = _gauge(
    "penumbra_guard_lease_seconds",
    "For how long a lease of a live guard holds.",
    unit=Unit.SECONDS,
)
FEEDBACK = _counter(
    "penumbra_feedback_total",
    "Users' judgements that were stored by this process.",
    of.MODEL,
    of.VARIANT,
    of.ROLE,
    of.SLICE,
    of.JUDGEMENT,
)
ALERTS = _counter("penumbra_alerts_total", "Alerts that Alertmanager's webhook brought.", of.RESULT)
UP = _gauge(
    "penumbra_process_up",
    "1 for a process whose metrics are in this answer of /metrics/all; it is told only there.",
    of.PROCESS,
    of.PROCESS_KIND,
)
BUILD = Metric(
    "penumbra_control_build_info",
    Kind.INFO,
    "Version of this control process.",
    Process.CONTROL,
    (of.VERSION, of.PYTHON),
)

METRICS = (
    PHASE, SHARE, SINCE, HELD, FROZEN, VERDICT, SLICE_STATE, PROOF_STALE, RUN_PAIRS, CHANGES,
    ROLLBACKS, LAST_ROLLBACK, ROLLBACK_SECONDS, FLAG_SHARE, QUARANTINED, KILLED, VARIANT_INFO,
    GUARDRAIL_EVIDENCE, GUARDRAIL_BOUNDARY, GUARDRAIL_TRIPPED, OBSERVATIONS, MEAN, EXCESS, AA_MEAN,
    TOLERANCE, LOWER, UPPER, EVIDENCE, PROOF, PROOF_BOUNDARY, INSTRUMENT_OK, EPOCH, GATEWAYS,
    COMPARATORS, OUTDATED_GATEWAYS, GATEWAY_EPOCH, CONTROL_CHANGES, STORE_FAILURES,
    SET_ASIDE, REPORTS_REFUSED, LOGINS_REFUSED, PROPAGATION, INCOMPLETE, GUARD_AGE, GUARD_LEASE,
    FEEDBACK, ALERTS, BUILD,
)  # fmt: skip
AGGREGATE_METRICS = (UP,)
"""Metrics that only the page of all processes, /metrics/all, exposes."""
