"""All labels of Penumbra's metrics. Pure.

The cardinality budget assumes an installation of two models, each with four variants and with
twenty slices beside the rest.
"""

from penumbra.monitoring.answers import AnswerCode
from penumbra.monitoring.observations import Arm, Signal
from penumbra.monitoring.signals.harm import Check
from penumbra.monitoring.telemetry.metric import Label
from penumbra.monitoring.vocabulary import Outcome, Reason, Role

MODELS = 2
VARIANTS = 4
SLICES = 21

AGGREGATE = "*"
"""The value of `slice` for all slices together; no slice can be called so."""

MODEL = Label("model", "The public name that clients send.", most=MODELS)
VARIANT = Label("variant", "The build, by its name in the configuration.", most=VARIANTS)
FROM_VARIANT = Label("from_variant", "The build that failed first.", most=VARIANTS)
CANDIDATE = Label("candidate", "The build that a rollout is about.", most=VARIANTS - 1)
ROLE = Label(
    "role",
    "Whether the variant is the model's baseline.",
    tuple(role.value for role in Role),
    is_implied=True,
)
SLICE = Label("slice", "The named part of the traffic; `other` is the rest.", most=SLICES)
STREAM = Label(
    "slice",
    "A slice, or `*`: all of them together, each against its own tolerance.",
    most=SLICES + 1,
)
REASON = Label(
    "reason",
    "Why the flag chose the variant (DESIGN's order).",
    tuple(reason.value for reason in Reason),
)
OUTCOME = Label("outcome", "How an attempt ended.", tuple(outcome.value for outcome in Outcome))
CODE = Label("code", "The stable code of the gateway's own error.", most=24)
ANSWER_CODE = Label(
    "code",
    "The status that the client got, those of a wrong key, name or limit by themselves;"
    " `broken_off`; or `unanswered`, an error of the gateway's own in place of an answer.",
    tuple(code.value for code in AnswerCode),
)
ARM = Label(
    "arm",
    "What was compared with the baseline: the candidate, or the baseline again (A/A).",
    tuple(arm.value for arm in Arm),
)
SIGNAL = Label("signal", "What a guardrail watches.", tuple(signal.value for signal in Signal))
CHECK = Label("check", "The harm check.", tuple(check.value for check in Check))
SIDE = Label("side", "Whose answer failed the check.", ("baseline", "candidate"))
DIRECTION = Label(
    "direction",
    "What the harm checks said of the candidate's answer beside the baseline's.",
    ("better", "same", "worse"),
)
MIRROR_REASON = Label(
    "reason",
    "Why a request that was chosen was not handed over.",
    (
        "no_comparator", "buffer_full", "route", "not_tappable", "refused", "too_large", "error",
        "broken_off", "client_gone", "continued", "other_variant", "fault",
    ),
)  # fmt: skip
SHED_REASON = Label(
    "reason",
    "Why a mirrored request was not compared.",
    (
        "queue_items", "queue_bytes", "busy", "budget", "age", "not_watched", "repeated_prompt",
        "repeated_session", "other_turn", "unreadable", "ids_missing", "not_text", "not_drawn",
        "too_long", "baseline_score", "other_arm", "error", "stopping", "fault",
    ),
)  # fmt: skip
WORK = Label(
    "work",
    "The background work that failed.",
    ("gauges", "health", "self_test", "scorer_test", "identity"),
)
STATE = Label("state", "Whether a request is on the connection now.", ("busy", "idle"))
PHASE = Label(
    "phase",
    "Where the rollout stands; one is 1, the others 0.",
    ("off", "shadow", "live", "promoted", "rolled_back"),
)
VERDICT = Label(
    "verdict",
    "What the evidence of the run says; one is 1, the others 0.",
    ("undecided", "pass", "fail", "inconclusive", "error"),
)
SLICE_STATE = Label(
    "state",
    "What is known of the slice; one is 1, the others 0.",
    ("undecided", "proven", "quarantined"),
)
CHANGE = Label(
    "change",
    "What became of the rollout.",
    (
        "applied", "advanced", "promoted", "held", "resumed", "quarantined", "rolled_back",
        "rearmed", "restarted", "graduated", "ended", "stale", "renewed", "other",
    ),
)  # fmt: skip
ACTOR = Label(
    "actor",
    "Who decided: the guard by itself, Alertmanager's webhook, or a person or tool.",
    ("guard", "alertmanager", "operator"),
)
PART = Label(
    "part",
    "Which part of the way from the deciding observation to the last gateway.",
    ("observed_to_durable", "durable_to_acknowledged", "observed_to_acknowledged"),
)
JUDGEMENT = Label("judgement", "What the user thought.", ("content", "not_content"))
KIND = Label(
    "kind",
    "What was changed.",
    (
        "config", "set", "kill", "unkill", "pin", "unpin", "split", "import", "reset", "recover",
        "rollout", "access",
    ),
)  # fmt: skip
GATEWAY = Label("gateway", "The gateway process, by its name.", most=16)
RESULT = Label(
    "result",
    "What became of an alert that the webhook got.",
    ("acted", "already_acted", "no_action", "resolved", "not_applicable", "failed"),
)
SURFACE = Label(
    "surface",
    "What a token was wanted for: the admin API, the webhook for alerts, or a link.",
    ("admin", "alerts", "link"),
)
LOGIN_REASON = Label(
    "reason",
    "Why a login was refused: no token, one that is unknown, expired or revoked, a link without its"
    " certificate, or a token that is not good for this.",
    (
        "no_token",
        "unknown_token",
        "expired_token",
        "revoked_token",
        "no_certificate",
        "not_allowed",
    ),
)
PROCESS = Label("process", "The process, by the name that discovery gives it.", most=32)
PROCESS_KIND = Label(
    "process_kind",
    "What kind of process it is.",
    ("gateway", "comparator", "control", "engine"),
    is_implied=True,
)
VERSION = Label("version", "Penumbra's version.", most=1)
PYTHON = Label("python", "Python's version.", most=1)
FINGERPRINT = Label(
    "fingerprint", "The first 16 digits of the build's digest, as the run knows it.", most=1
)
