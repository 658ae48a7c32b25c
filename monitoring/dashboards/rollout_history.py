"""Rollout dashboard: rollbacks, their durations, and changes."""

from penumbra.monitoring.dashboards import frame
from penumbra.monitoring.dashboards.options import ORANGE, About, Column, Look, Query
from penumbra.monitoring.dashboards.panels import chart, number, rows
from penumbra.monitoring.dashboards.promql import largest, reached, total
from penumbra.monitoring.dashboards.rollout_scope import IN, PAIR
from penumbra.monitoring.telemetry import control, gateway
from penumbra.monitoring.telemetry.metric import Metric


def rollbacks() -> frame.Row:
    """The row of rollbacks and changes."""
    took = control.ROLLBACK_SECONDS
    return frame.Row(
        "Rollbacks and changes",
        [
            rows(
                About(
                    "How long rollbacks took",
                    "Quantiles of all rollbacks since the control process began, part by part, from"
                    " the deciding observation to the last gateway's acknowledgement.",
                    "rolled-back",
                ),
                ("part",),
                [
                    Column(query=_of_all(took, at), name=name, unit="s", decimals=1)
                    for at, name in ((0.5, "median"), (0.99, "99 %"))
                ],
                width=10,
                height=6,
            ),
            rows(
                About(
                    "Rollbacks by actor",
                    "Rollbacks since the store began: the guard by itself, Alertmanager's webhook,"
                    " or an operator.",
                    "rolled-back",
                ),
                ("candidate", "actor"),
                [
                    Column(
                        query=largest("candidate, actor", IN.pick(control.ROLLBACKS)),
                        name="rollbacks",
                        decimals=0,
                    )
                ],
                width=7,
                height=6,
            ),
            number(
                About(
                    "Local trips",
                    "How often a gateway took a failing candidate out of service by itself, in this"
                    " time range.",
                    "failure-regression",
                ),
                [
                    Query(
                        f"sum(max_over_time({IN.pick(gateway.LOCAL_TRIPS)}[$__range]))"
                        f" or count({gateway.SNAPSHOT_EPOCH.name}) * 0",
                        "trips",
                    )
                ],
                "short",
                ((1, ORANGE),),
                width=3,
            ).height(6),
            rows(
                About(
                    "Webhook alerts",
                    "What became of the alerts that Alertmanager's webhook brought, in this time"
                    " range.",
                ),
                ("result",),
                [
                    Column(
                        query=reached("result", IN.pick(control.ALERTS)), name="alerts", decimals=0
                    )
                ],
                width=4,
                height=6,
            ),
            chart(
                About(
                    "Changes of the rollout",
                    "Durable changes since the store began; a step is a change of that kind.",
                ),
                [
                    Query(
                        largest(f"{PAIR}, change", IN.pick(control.CHANGES)),
                        "{{candidate}}: {{change}}",
                    )
                ],
                "short",
                Look(has_steps=True, decimals=0),
            ),
            chart(
                About(
                    "Changes by kind",
                    "All durable changes of the control process since the store began: flags, pins,"
                    " kill switch and rollouts.",
                ),
                [Query(largest("kind", IN.pick(control.CONTROL_CHANGES)), "{{kind}}")],
                "short",
                Look(has_steps=True, decimals=0),
            ),
        ],
    )


def _of_all(metric: Metric, at: float) -> str:
    """A quantile since the process began: rollbacks are too rare for a window of seconds."""
    buckets = total("le, part", IN.pick(metric, part="bucket"))
    count = total("part", IN.pick(metric, part="count"))
    return f"histogram_quantile({at:g}, {buckets}) and on (part) ({count} > 0)"
