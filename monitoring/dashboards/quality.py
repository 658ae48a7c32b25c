"""Quality dashboard: signals with anytime-valid intervals, tolerances and A/A means."""

from penumbra.monitoring.dashboards import frame
from penumbra.monitoring.dashboards.options import (
    BLUE,
    GREEN,
    ORANGE,
    PALE_BLUE,
    RED,
    YELLOW,
    About,
    Column,
    Look,
    Query,
)
from penumbra.monitoring.dashboards.panels import chart, rows
from penumbra.monitoring.dashboards.promql import largest, smallest
from penumbra.monitoring.dashboards.quality_raw import raw
from penumbra.monitoring.dashboards.quality_scope import IN, VARIABLES
from penumbra.monitoring.telemetry import control
from penumbra.monitoring.telemetry.metric import Metric

AGGREGATE = 'slice="*"'
CHOSEN = ('slice=~"$slice"', 'slice!="*"')
MEAN, LOWER, UPPER, TOLERANCE, AA = "mean", "lower end", "upper end", "tolerance", "A/A mean"
BAND = Look(
    minimum=None,
    colors={
        f"/^{MEAN}$/": BLUE,
        f"/^({LOWER}|{UPPER})$/": PALE_BLUE,
        f"/^{TOLERANCE}$/": RED,
        f"/^{AA}$/": GREEN,
    },
    dashed=f"/^{TOLERANCE}$/",
    band=(UPPER, LOWER),
)
SIGNALS = {
    "displacement": "Probability that the candidate moves away from the baseline's tokens.",
    "harm": "How much more often the candidate's answer fails a check than the baseline's does.",
    "failure": "Share of the candidate's requests that failed.",
    "ttft": "Share of live answers whose first byte came later than the baseline's would.",
    "tpot": "Share of live streams that were slower for each token than the baseline's would be.",
    "feedback": "Share of judged answers of the candidate with which the user was not content.",
}
RUNBOOKS = {
    "displacement": "quality-regression",
    "harm": "quality-regression",
    "failure": "failure-regression",
    "ttft": "latency-regression",
    "tpot": "latency-regression",
    "feedback": "quality-regression",
}


def _tables() -> frame.Row:
    quality = 'signal=~"displacement|harm"'
    return frame.Row(
        "Signals of the current run",
        [
            _streams("All slices together", "", (AGGREGATE,), 7),
            _streams(
                "Every slice",
                " A guardrail acts on all its streams together.",
                (*CHOSEN, quality),
                12,
            ),
        ],
    )


def _streams(title: str, more: str, matchers: tuple[str, ...], height: int) -> frame.Panel:
    by = "signal, slice"

    def now(metric: Metric) -> str:
        return largest(by, IN.pick(metric, *matchers))

    shares = {
        MEAN: now(control.MEAN),
        LOWER: smallest(by, IN.pick(control.LOWER, *matchers)),
        UPPER: now(control.UPPER),
        TOLERANCE: now(control.TOLERANCE),
        AA: now(control.AA_MEAN),
        "excess": now(control.EXCESS),
    }
    return rows(
        About(
            title,
            "A stream is beyond tolerance for certain once the lower end of its interval is above"
            f" the tolerance, and within it once the upper end is below. Excess is over A/A.{more}",
            "quality-regression",
        ),
        ("signal", "slice"),
        [
            Column(query=now(control.OBSERVATIONS), name="observations", decimals=0),
            *(
                Column(query=query, name=name, unit="percentunit", decimals=2)
                for name, query in shares.items()
            ),
            Column(
                query=f"{shares[MEAN]} / ({shares[TOLERANCE]} > 0)",
                name="of tolerance",
                unit="percentunit",
                decimals=0,
                steps=((0.7, YELLOW), (1, RED)),
            ),
        ],
        height=height,
    )


def _band(title: str, signal: str, stream: tuple[str, ...], width: int) -> frame.Panel:
    matchers = (f'signal="{signal}"', *stream)
    return chart(
        About(
            title,
            f"{SIGNALS[signal]} The band is the mean's anytime-valid interval: above the dashed"
            " tolerance it is too much, below it the candidate is within; green is the baseline"
            " against itself.",
            RUNBOOKS[signal],
        ),
        [
            Query(largest("slice", IN.pick(metric, *matchers)), name)
            for metric, name in (
                (control.MEAN, MEAN),
                (control.UPPER, UPPER),
                (control.LOWER, LOWER),
                (control.TOLERANCE, TOLERANCE),
                (control.AA_MEAN, AA),
            )
        ],
        "percentunit",
        BAND,
        width,
    )


def _signal(signal: str) -> frame.Row:
    matchers = (f'signal="{signal}"', *CHOSEN)
    excess = largest("slice", IN.pick(control.EXCESS, *matchers))
    upper = largest("slice", IN.pick(control.UPPER, *matchers))
    lower = smallest("slice", IN.pick(control.LOWER, *matchers))
    tolerance = largest("slice", IN.pick(control.TOLERANCE, *matchers))
    return frame.Row(
        signal.capitalize(),
        [
            _band(f"{signal.capitalize()}, all slices", signal, (AGGREGATE,), 12),
            chart(
                About(
                    f"Excess of {signal} over A/A, by slice",
                    "Mean of each slice less that of the baseline against itself: what is left is"
                    " the candidate's doing.",
                    RUNBOOKS[signal],
                ),
                [Query(excess, "{{slice}}")],
                "percentunit",
                Look(minimum=None),
            ),
            chart(
                About(
                    f"{signal.capitalize()}: lower end less tolerance",
                    "Lower end of each slice's interval less its tolerance. Above 0 the slice is"
                    " beyond tolerance for certain.",
                    RUNBOOKS[signal],
                ),
                [Query(f"{lower} - {tolerance}", "{{slice}}")],
                "percentunit",
                Look(minimum=None, limit=((0, RED),)),
            ),
            chart(
                About(
                    f"{signal.capitalize()}: upper end less tolerance",
                    "Upper end of each slice's interval less its tolerance. Below 0 the slice is"
                    " within tolerance for certain.",
                ),
                [Query(f"{upper} - {tolerance}", "{{slice}}")],
                "percentunit",
                Look(minimum=None, limit=((0, ORANGE),)),
            ),
        ],
    )


def _guards() -> frame.Row:
    return frame.Row(
        "Failures, latency and feedback",
        [
            _band(f"{title}, all slices", signal, (AGGREGATE,), 12)
            for signal, title in (
                ("failure", "Failed requests"),
                ("ttft", "Slow first bytes"),
                ("tpot", "Slow streams"),
                ("feedback", "Users not content"),
            )
        ],
    )


def _each_slice() -> frame.Row:
    """A row of panels that Grafana repeats for every chosen slice."""
    panels = [
        _band(f"{signal.capitalize()} on $slice", signal, ('slice=~"$slice"',), 24)
        for signal in ("displacement", "harm")
    ]
    for panel in panels:
        panel.repeat("slice").repeat_direction("h").max_per_row(3)
    return frame.Row("Each slice by itself", panels, is_collapsed=True)


BOARD = frame.Board(
    "quality",
    "Quality drift",
    "One candidate against its tolerances: every signal with its anytime-valid interval on every"
    " slice, beside the baseline against itself (A/A).",
    VARIABLES,
    [_tables(), _signal("displacement"), _signal("harm"), _guards(), raw(), _each_slice()],
)
