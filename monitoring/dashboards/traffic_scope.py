"""Variables and scope that all parts of the traffic dashboard share."""

from penumbra.monitoring.dashboards import frame
from penumbra.monitoring.dashboards.promql import Scope

VARIABLES = (frame.MODEL, frame.VARIANT, frame.CANDIDATE, frame.SLICE)
IN = Scope(tuple(variable.name for variable in VARIABLES))
QUANTILES = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
