"""Metrics of every comparator process. Pure.

These are raw observations: rules that compare two builds by them need nothing of the control
process, and hold when its guard does not.
"""

from penumbra.monitoring.telemetry import labels as of
from penumbra.monitoring.telemetry.metric import (
    LATENCY_BUCKETS_SECONDS,
    RATIO_BUCKETS,
    Kind,
    Label,
    Metric,
    Process,
    Unit,
)

_PAIR = (of.MODEL, of.CANDIDATE, of.SLICE, of.ARM)


def _counter(name: str, text: str, *labels: Label) -> Metric:
    return Metric(name, Kind.COUNTER, text, Process.COMPARATOR, labels)


def _gauge(name: str, text: str, *labels: Label, unit: Unit = Unit.NUMBER) -> Metric:
    return Metric(name, Kind.GAUGE, text, Process.COMPARATOR, labels, unit)


RECEIVED = _counter(
    "penumbra_shadow_received_total", "Mirrored requests that gateways handed over."
)
MALFORMED = _counter(
    "penumbra_shadow_malformed_frames_total", "What gateways sent that was no frame."
)
FAULTS = _counter(
    "penumbra_shadow_faults_total",
    "Background work of the comparator that failed; its log says where.",
    of.WORK,
)
PAIRS = _counter("penumbra_shadow_pairs_total", "Compared requests.", *_PAIR)
MISSING = _counter(
    "penumbra_shadow_missing_total",
    "Compared requests for which the candidate gave no usable score or answer.",
    *_PAIR,
)
DISPLACEMENT = Metric(
    "penumbra_shadow_displacement_ratio",
    Kind.HISTOGRAM,
    "Displacement of each scored pair: total variation between both builds, in expectation.",
    Process.COMPARATOR,
    _PAIR,
    Unit.RATIO,
    RATIO_BUCKETS,
)
HARM = _counter(
    "penumbra_shadow_harm_total",
    "Pairs in which both builds answered, by what the harm checks said.",
    *_PAIR,
    of.DIRECTION,
)
FAILED_CHECKS = _counter(
    "penumbra_shadow_failed_checks_total",
    "Answers of candidate pairs that failed a harm check, by whose they were.",
    of.MODEL,
    of.CANDIDATE,
    of.CHECK,
    of.SIDE,
)
SHEDS = _counter(
    "penumbra_shadow_sheds_total",
    "Mirrored requests that were not compared, for each rollout that chose them.",
    of.MODEL,
    of.SHED_REASON,
)
ENGINE_SECONDS = Metric(
    "penumbra_shadow_engine_seconds",
    Kind.HISTOGRAM,
    "Time that engines worked for one pair, as seen from outside.",
    Process.COMPARATOR,
    (of.MODEL, of.CANDIDATE),
    Unit.SECONDS,
    LATENCY_BUCKETS_SECONDS,
)
LAG = Metric(
    "penumbra_shadow_lag_seconds",
    Kind.HISTOGRAM,
    "From the end of the client's answer to its comparison done.",
    Process.COMPARATOR,
    (of.MODEL,),
    Unit.SECONDS,
    LATENCY_BUCKETS_SECONDS,
)
QUEUE_ITEMS = _gauge("penumbra_shadow_queue_items", "Mirrored requests that wait.")
QUEUE_BYTES = _gauge(
    "penumbra_shadow_queue_bytes", "Bytes of the requests that wait.", unit=Unit.BYTES
)
IN_FLIGHT = _gauge("penumbra_shadow_in_flight", "Comparisons under way.")
BUDGET = _gauge(
    "penumbra_shadow_budget_seconds",
    "Engine seconds that may be spent now; negative for a debt.",
    unit=Unit.SECONDS,
)
SELF_TEST_OK = _gauge(
    "penumbra_shadow_self_test_ok",
    "Whether the last self-test found the baseline equal to itself.",
    of.MODEL,
)
SELF_TEST_GAP = _gauge(
    "penumbra_shadow_self_test_gap_nats",
    "Largest difference of two scores of one token in the last self-test.",
    of.MODEL,
    unit=Unit.NATS,
)
HEALTHY = _gauge(
    "penumbra_shadow_candidate_healthy",
    "Whether the candidate's engine answered its last health check.",
    of.MODEL,
    of.CANDIDATE,
)
OBSERVATIONS_DROPPED = _counter(
    "penumbra_shadow_observations_dropped_total",
    "Observations that were lost because too many waited for the control process.",
)
CONTROL_CONNECTED = _gauge(
    "penumbra_shadow_control_connected", "1 while the link to the control process is up."
)
BUILD = Metric(
    "penumbra_comparator_build_info",
    Kind.INFO,
    "Version of this comparator process.",
    Process.COMPARATOR,
    (of.VERSION, of.PYTHON),
)

METRICS = (
    RECEIVED, MALFORMED, FAULTS, PAIRS, MISSING, DISPLACEMENT, HARM, FAILED_CHECKS, SHEDS,
    ENGINE_SECONDS, LAG, QUEUE_ITEMS, QUEUE_BYTES, IN_FLIGHT, BUDGET, SELF_TEST_OK, SELF_TEST_GAP,
    HEALTHY, OBSERVATIONS_DROPPED, CONTROL_CONNECTED, BUILD,
)  # fmt: skip
