"""All log events of Penumbra's services: name, meaning, fields. Pure.

Checked against the code and docs/logs.md, both ways (tests/conformance/test_log_events.py).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One kind of log line."""

    name: str
    help: str
    """One sentence, with a full stop."""
    fields: tuple[str, ...] = ()
    """Fields beside those that every line has."""


def _event(name: str, text: str, *fields: str) -> LogEvent:
    return LogEvent(name, text, fields)


COMMON = ("at", "level", "process", "logger", "event")
"""Fields of every line; a line about an exception also has `exception`."""

EVENTS = (
    # Rollouts
    _event(
        "rollout_changed",
        "A rollout changed, by the guard or a person: one line for each change, `text` says it.",
        "text", "model", "candidate", "change", "stage", "verdict", "cause", "actor", "epoch",
        "trace_id",
    ),
    _event("rollback_times_not_stored", "How fast a rollback was is lost.", "epoch", "code"),
    _event("candidate_tripped", "A gateway took a failing candidate out.", "model", "candidate"),
    _event("candidate_unhealthy", "A watched candidate says that it cannot answer.", "candidate"),
    _event("scorer_test", "A candidate's scorer was tested.", "candidate", "detail"),
    _event("self_test", "The baseline was scored against itself.", "model", "detail"),
    # The gateway
    _event("gateway_started", "It listens.", "addresses"),
    _event("gateway_draining", "It takes no more connections, and ends what is under way."),
    _event("gateway_stopped", "It has ended."),
    _event(
        "emergency_kill",
        "An operator killed a model in this process itself, by `penumbra gateway kill`.",
        "model", "actor", "reason",
    ),
    _event("emergency_kill_over", "Its own flag is killed; that decides from now on.",
           "model", "epoch"),
    _event("emergency_kills_not_kept", "The file with them cannot be read or written.",
           "file", "error"),
    _event("hangup_taken", "SIGHUP: certificate and token were read again.", "has_other_token"),
    _event("token_unreadable", "SIGHUP: the token's file cannot be read; the last one holds.",
           "error"),
    _event("snapshot_applied", "A routing table is in force.", "epoch"),
    _event(
        "keys_not_kept",
        "The file with the keys that were told last cannot be read or written.",
        "file", "error",
    ),
    _event("keys_applied", "Other API keys are in force: so many.", "keys"),
    _event(
        "gateway_without_keys",
        "All keys were taken away, and it listens beyond its machine: it lets no caller in.",
        "host",
    ),
    _event("snapshot_refused", "A routing table cannot be used.", "epoch", "detail"),
    _event("control_link_up", "The control process is there.", "epoch"),
    _event("control_link_down", "The control process is away.", "error", "last_epoch"),
    _event("link_chore_failed", "A duty on the link failed."),
    _event(
        "link_message_unknown",
        "A newer peer sent a message of an unknown type; it was ignored. Once a type and link.",
        "peer", "message_type",
    ),
    _event("upstream_key_missing", "A variant's key is not in the environment.", "variable"),
    _event("comparator_connected", "Mirrored requests can be handed over."),
    _event("comparator_lost", "They cannot any more; what waited is lost."),
    _event("mirroring_failed", "A request could not be mirrored.", "error", "trace_id"),
    _event("request_fault", "A fault of ours met a request: a 500, or an answer broken off."),
    _event("request_callback_failed", "A fault of ours ended a client's connection."),
    _event("answer_callback_failed", "A fault of ours ended an upstream's answer."),
    _event(
        "gateway_stood_still",
        "The process did not run for so long; its limits on others are extended by it.",
        "seconds",
    ),
    _event("attribution_failed", "A fault of ours left a candidate's failure without a verdict."),
    _event("continuation_failed", "A fault of ours ended a stream that could be continued."),
    _event(
        "continuation_given_up",
        "The baseline did not complete a stream that broke off; its client got an error.",
        "variant", "outcome", "detail",
    ),
    _event("expire_failed", "A fault of ours met a deadline."),
    _event("move_failed", "A request could not be moved off a rolled back candidate."),
    _event("write_failed", "Bytes could not be written to a connection."),
    _event(
        "upstream_connect_failed",
        "A variant's server cannot be connected to; at most once a minute and variant.",
        "model", "url", "error",
    ),
    _event("descriptor_limit", "The limit on open files was raised.", "before", "now"),
    _event("certificate_renewed", "New connections get the changed certificate.", "file"),
    _event(
        "certificate_unusable",
        "The files of the certificate have changed and are no use: the last ones stay in force.",
        "problem",
    ),
    # The comparator
    _event("comparator_started", "It runs.", "port"),
    _event("comparator_stopping", "It ends; what waits is shed."),
    _event("comparator_stopped", "It has ended."),
    _event("frames_awaited", "Gateways may connect.", "socket"),
    _event("gateway_connection_refused", "Too many gateways.", "connections"),
    _event("frame_malformed", "What a gateway sent is no frame.", "error"),
    _event("comparison_failed", "A fault ended a comparison.", "error", "where", "trace_id"),
    _event("attendance_failed", "A check of the engines failed.", "work"),
    # The control process
    _event("control_started", "It serves.", "address", "epoch", "is_leading"),
    _event(
        "configuration_differs",
        "The file that it started with is not what is in force; `command` puts it into force.",
        "file", "steps", "command",
    ),
    _event("file_unchanged", "SIGHUP: the file is what is in force.", "file"),
    _event("file_unreadable", "SIGHUP: the file cannot be used.", "file", "detail"),
    _event(
        "settings_differ",
        "SIGHUP: the file has other settings of this machine, which take effect at the next start.",
        "file", "settings",
    ),
    _event("engines_in_service", "Engines that were started get requests; these are starting yet.",
           "starting"),
    _event(
        "engines_not_directed",
        "Which engines are to run, or which answer, could not be told; it is tried again.",
        "error", "repeated",
    ),
    _event("leadership_begun", "It leads: it alone changes things and grants leases.",
           "address", "epoch"),
    _event("leadership_lost", "Another control process has taken over; it stands by.", "detail"),
    _event("store_lost_events", "The store does not hold an epoch that was read.", "epoch"),
    _event(
        "store_went_back",
        "The store has lost changes; what they took away is taken away again, and stays so until"
        " an operator changes it.",
        "seen_epoch", "epoch", "generation", "models",
    ),
    _event("last_seen_unreadable", "What was seen before the start is not known.", "file", "error"),
    _event("last_seen_unwritten", "A store that goes back may not be noticed at the next start.",
           "file", "error"),
    _event("table_unknown", "A gateway acknowledged a table that was not sent to it.",
           "gateway", "epoch", "generation"),
    _event("standby_failed", "It cannot read the store, or could not take over.",
           "code", "detail", "repeated"),
    _event(
        "store_awaited",
        "The database is away, and the control process waits for it to start. At most once a"
        " minute.",
        "code", "detail", "repeated",
    ),
    _event("leadership_failed", "A change of leader met an error; it is tried again.", "repeated"),
    _event("control_stopped", "It has ended."),
    _event("gateway_connected", "A gateway or comparator is there.",
           "gateway", "gateway_pid", "link_version"),
    _event("gateway_gone", "It is away.", "gateway", "gateway_pid"),
    _event("gateway_link_broken", "A link ended by a fault.", "error"),
    _event("snapshot_unacknowledged", "Gateways did not answer in time.", "epoch", "gateways"),
    _event(
        "snapshot_refused_by_gateway", "A gateway cannot use a table.", "gateway", "epoch", "detail"
    ),
    _event("guard_not_alive", "The guard gives no heartbeat; leases run out.",
           "code", "detail", "repeated"),
    _event(
        "evidence_stopped",
        "A gateway's comparator takes nothing, or a comparator compares nothing, of these"
        " candidates: they have no lease there.",
        "gateway", "candidates",
    ),
    _event("evidence_flows", "It does again, of all of them.", "gateway"),
    _event("report_not_stored", "Observations were not stored; they come again.",
           "source", "seq", "code", "detail", "repeated"),
    _event(
        "report_refused",
        "Observations cannot be counted, and were dropped; at most once a minute and process.",
        "gateway", "seq", "detail", "refused_before",
    ),
    _event(
        "login_refused",
        "A request or a link came without the token that it needs; at most once a minute and"
        " address.",
        "address", "surface", "reason", "refused_before",
    ),
    _event(
        "issuer_unavailable",
        "The issuer of tokens does not tell its keys; at most once a minute.",
        "issuer", "problem", "repeated",
    ),
    _event("feedback_not_stored", "A judgement was not stored; its sender was told."),
    _event(
        "event_set_aside",
        "A stored event cannot be read; its model, or with null every model, gets the baseline;"
        " with `(access)` no identity is let in.",
        "model", "epoch", "kind", "detail",
    ),
    _event("housekeeping_failed", "A fault of ours met old rows or a checkpoint."),
    _event("checkpoint_not_stored", "The next start folds more rows.", "detail"),
    _event("checkpoint_unusable", "It is damaged; all its rows are folded.",
           "checkpoint", "detail"),
    _event("base_unusable", "Reports were deleted and are lost; their run begins anew.",
           "run", "detail"),
    _event("change_failed", "A change was not made, or a read not answered.",
           "code", "detail", "repeated"),
    _event("request_failed", "A call of the admin API met a fault of ours.", "path"),
    # Alerts and metrics
    _event(
        "alert_taken",
        "Alertmanager brought an alert, and this became of it.",
        "fingerprint", "alert", "model", "candidate", "result", "detail", "epoch",
    ),
    _event("alert_failed", "A fault of ours met an alert; it comes again.", "fingerprint"),
    _event("metrics_left_out", "A page is not in /metrics/all.", "target", "detail"),
    _event("metrics_unreachable", "A process cannot be scraped at its announced address.",
           "gateway", "machine", "address", "detail"),
    _event("intervals_not_worked_out", "Ends of intervals that are exported stay as they were."),
    _event("replicas_unknown", "Ray does not say where replicas are.", "error"),
    _event("replicas_unreadable", "The file with their addresses cannot be read.", "file", "error"),
    # Traces
    _event("tracing_on", "An endpoint is set; requests are sampled.", "ratio"),
    _event("spans_lost", "The collector did not take them; at most once a minute.",
           "failed", "dropped", "cause"),
    _event("content_not_captured", "The environment asks for content in spans.", "variable"),
    # `penumbra up` and what it hosts
    _event("installation_ready", "All is up.", "gateway"),
    _event(
        "state_unwritten",
        "The state file cannot be written; all goes on. At most once a minute.",
        "file", "error", "repeated",
    ),
    _event("state_written", "It can be written again.", "file"),
    _event(
        "state_unshown",
        "The state cannot be shown on standard output. At most once a minute.",
        "error", "repeated",
    ),
    _event(
        "log_unwritable",
        "A process was started whose log cannot be opened: it writes none.",
        "program", "error",
    ),
    _event("process_died", "A process ended by itself and is started again.",
           "program", "exit", "restart_seconds"),
    _event(
        "process_hung",
        "A process has not answered its health check for so long: it is killed and started again.",
        "program", "seconds",
    ),
    _event("process_killed", "A process did not end in time.", "program"),
    _event("orphans_ended", "Processes that were left behind were ended.", "pids"),
    _event("warm_up_failed", "A build did not answer its first requests.", "variant", "error"),
    _event("fleet_deployed", "Ray has all variants, of which so many are new or changed.",
           "variants", "new"),
    _event("hangup_passed_on", "SIGHUP: the file was read again, and each process was told."),
    _event("variant_refused", "Ray Serve does not take a variant; the others run.", "variant"),
    _event("engines_not_followed", "Which engines are to run cannot be written down.", "error"),
    _event("variant_engine_dead", "An engine died; its replica ends."),
    _event(
        "weights_not_read",
        "A folder's weights have no digest, so that other weights there are no other build.",
        "source", "error",
    ),
)  # fmt: skip
