"""Metrics of every gateway process. Pure."""

from penumbra.monitoring.telemetry import labels as of
from penumbra.monitoring.telemetry.metric import (
    FAST_BUCKETS_SECONDS,
    LATENCY_BUCKETS_SECONDS,
    Kind,
    Label,
    Metric,
    Process,
    Unit,
)

_ANSWERED = (of.MODEL, of.VARIANT, of.ROLE, of.SLICE)


def _counter(name: str, text: str, *labels: Label) -> Metric:
    return Metric(name, Kind.COUNTER, text, Process.GATEWAY, labels)


def _gauge(name: str, text: str, *labels: Label, unit: Unit = Unit.NUMBER) -> Metric:
    return Metric(name, Kind.GAUGE, text, Process.GATEWAY, labels, unit)


def _latency(name: str, text: str, buckets: tuple[float, ...]) -> Metric:
    return Metric(name, Kind.HISTOGRAM, text, Process.GATEWAY, _ANSWERED, Unit.SECONDS, buckets)


REQUESTS = _counter(
    "penumbra_requests_total", "Requests answered by a variant, whatever the status.", *_ANSWERED
)
DECISIONS = _counter(
    "penumbra_decisions_total",
    "Requests by the variant that the flag chose and why.",
    of.MODEL,
    of.VARIANT,
    of.ROLE,
    of.REASON,
)
ATTEMPTS = _counter(
    "penumbra_upstream_attempts_total",
    "Attempts at a variant by how they ended.",
    *_ANSWERED,
    of.OUTCOME,
)
ANSWERS = _counter(
    "penumbra_answers_total",
    "Answers as clients got them, whichever build caused it; one that broke off was counted before,"
    " when it began.",
    of.MODEL,
    of.VARIANT,
    of.ROLE,
    of.ANSWER_CODE,
)
FAILOVERS = _counter(
    "penumbra_failovers_total",
    "Requests that another attempt had to answer or to continue, by what happened first.",
    of.MODEL,
    of.FROM_VARIANT,
    of.OUTCOME,
)
TIME_TO_FIRST_BYTE = _latency(
    "penumbra_time_to_first_byte_seconds",
    "From the request read to the first byte of its answer's body (a stream's first token).",
    LATENCY_BUCKETS_SECONDS,
)
TIME_PER_OUTPUT_TOKEN = _latency(
    "penumbra_time_per_output_token_seconds",
    "Mean time between two pieces of a stream, a token each as a rule, if its client kept up.",
    FAST_BUCKETS_SECONDS,
)
DURATION = _latency(
    "penumbra_request_duration_seconds",
    "From the request read to the last byte of its answer.",
    LATENCY_BUCKETS_SECONDS,
)
STREAM_PIECES = _counter(
    "penumbra_stream_pieces_total",
    "Pieces of streams that clients got, each a token as a rule.",
    *_ANSWERED,
)
ERRORS = _counter(
    "penumbra_gateway_errors_total",
    "Requests that the gateway itself answered with an error, limits included.",
    of.CODE,
)
DISCONNECTS = _counter(
    "penumbra_client_disconnects_total",
    "Clients that went away before their answer was complete.",
)
MIRRORED = _counter(
    "penumbra_mirrored_requests_total",
    "Answered requests that were handed over to the comparator.",
    of.MODEL,
    of.CANDIDATE,
    of.SLICE,
)
MIRROR_SHEDS = _counter(
    "penumbra_mirror_sheds_total",
    "Requests chosen for mirroring that were not handed over, by the reason.",
    of.MODEL,
    of.CANDIDATE,
    of.MIRROR_REASON,
)
POST_ROLLBACK_STARTS = _counter(
    "penumbra_post_rollback_candidate_starts_total",
    "Attempts at a candidate that began although it is out of service; must stay 0.",
    of.MODEL,
    of.VARIANT,
)
LOCAL_TRIPS = _counter(
    "penumbra_local_trips_total",
    "Candidates that this gateway took out of service by itself because they failed.",
    of.MODEL,
    of.CANDIDATE,
)
SNAPSHOT_EPOCH = _gauge("penumbra_snapshot_epoch", "Epoch of the routing table in force.")
IN_FLIGHT = _gauge("penumbra_requests_in_flight", "Requests with an upstream attempt under way.")
UPSTREAM_CONNECTIONS = _gauge(
    "penumbra_upstream_connections",
    "Open connections to a variant.",
    of.MODEL,
    of.VARIANT,
    of.STATE,
)
COMPARATOR_CONNECTED = _gauge(
    "penumbra_comparator_connected",
    "1 while mirrored requests can be handed over to a comparator.",
)
MIRROR_BUFFER = _gauge(
    "penumbra_mirror_buffer_bytes",
    "Mirrored requests that wait to be taken by the comparator.",
    unit=Unit.BYTES,
)
MIRROR_LOST = _counter(
    "penumbra_mirror_lost_total",
    "Mirrored requests that waited for a comparator when it went away.",
)
LEASE = _gauge(
    "penumbra_lease_seconds",
    "For how much longer candidates may get live traffic without a sign of life of the guard.",
    of.MODEL,
    unit=Unit.SECONDS,
)
OBSERVATIONS_DROPPED = _counter(
    "penumbra_observations_dropped_total",
    "Observations that were lost because too many waited for the control process.",
)
CONTROL_CONNECTED = _gauge(
    "penumbra_control_connected", "1 while the link to the control process is up."
)
BUILD = Metric(
    "penumbra_gateway_build_info",
    Kind.INFO,
    "Version of this gateway process.",
    Process.GATEWAY,
    (of.VERSION, of.PYTHON),
)

METRICS = (
    REQUESTS, ANSWERS, DECISIONS, ATTEMPTS, FAILOVERS, TIME_TO_FIRST_BYTE, TIME_PER_OUTPUT_TOKEN,
    DURATION, STREAM_PIECES, ERRORS, DISCONNECTS, MIRRORED, MIRROR_SHEDS, POST_ROLLBACK_STARTS,
    LOCAL_TRIPS, SNAPSHOT_EPOCH, IN_FLIGHT, UPSTREAM_CONNECTIONS, COMPARATOR_CONNECTED,
    MIRROR_BUFFER, MIRROR_LOST, LEASE, OBSERVATIONS_DROPPED, CONTROL_CONNECTED, BUILD,
)  # fmt: skip
