"""Engines dashboard: use, saturation and errors of every replica, from vLLM's own metrics."""

from penumbra.monitoring.dashboards import frame
from penumbra.monitoring.dashboards.options import ORANGE, TOKENS, About, Look, Query
from penumbra.monitoring.dashboards.panels import chart
from penumbra.monitoring.dashboards.promql import Scope, largest, per_second, quantile, total
from penumbra.monitoring.telemetry import engine

VARIABLES = (frame.MODEL, frame.VARIANT)
IN = Scope(tuple(variable.name for variable in VARIABLES))
BY = "model, variant, replica"
LEGEND = "{{variant}} {{replica}}"


def _work() -> frame.Row:
    return frame.Row(
        "Work",
        [
            chart(
                About("Requests in the batch", "Requests that each replica works on at once."),
                [Query(total(BY, IN.pick(engine.RUNNING)), LEGEND)],
                "short",
            ),
            chart(
                About(
                    "Requests finished",
                    "Requests that each replica finished for each second, scores of shadow"
                    " included.",
                ),
                [Query(per_second(BY, IN.pick(engine.FINISHED)), LEGEND)],
                "reqps",
            ),
            chart(
                About(
                    "Prompt tokens",
                    "Prompt tokens that each replica processed for each second, scores included.",
                ),
                [Query(per_second(BY, IN.pick(engine.PROMPT_TOKENS)), LEGEND)],
                TOKENS,
            ),
            chart(
                About(
                    "Generated tokens",
                    "Tokens that each replica generated for each second, shadow answers included.",
                ),
                [Query(per_second(BY, IN.pick(engine.GENERATION_TOKENS)), LEGEND)],
                TOKENS,
            ),
        ],
    )


def _saturation() -> frame.Row:
    return frame.Row(
        "Saturation",
        [
            chart(
                About(
                    "Requests that wait",
                    "Requests that wait for a place in each replica's batch; a steady line above 0"
                    " means that it is full, and that shadow sheds.",
                ),
                [Query(total(BY, IN.pick(engine.WAITING)), LEGEND)],
                "short",
            ),
            chart(
                About(
                    "KV cache",
                    "Share of each replica's KV cache that is taken. Near 100 % requests are put"
                    " back.",
                ),
                [Query(largest(BY, IN.pick(engine.KV_CACHE)), LEGEND)],
                "percentunit",
                Look(maximum=1, limit=((0.9, ORANGE),)),
            ),
            chart(
                About(
                    "Time in the engine's queue, p50",
                    "Half of the requests waited longer before they got a place in the batch.",
                ),
                [Query(quantile(IN, engine.QUEUE_SECONDS, 0.5, BY), LEGEND)],
                "s",
                width=8,
            ),
            chart(
                About(
                    "Time in the engine's queue, p99",
                    "One in a hundred waited longer: what the slowest users feel first.",
                ),
                [Query(quantile(IN, engine.QUEUE_SECONDS, 0.99, BY), LEGEND)],
                "s",
                width=8,
            ),
            chart(
                About(
                    "Preemptions",
                    "Requests put back for each second because the KV cache was full; they are"
                    " computed again.",
                ),
                [Query(per_second(BY, IN.pick(engine.PREEMPTIONS)), LEGEND)],
                "cps",
                width=8,
            ),
        ],
    )


BOARD = frame.Board(
    "engines",
    "Engines",
    "What every replica of every variant works on and how near it is to its limits, from vLLM's own"
    " metrics under one name.",
    VARIABLES,
    [_work(), _saturation()],
)
