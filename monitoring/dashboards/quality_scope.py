"""Variables and scope that all parts of the quality dashboard share."""

from penumbra.monitoring.dashboards import frame
from penumbra.monitoring.dashboards.promql import Scope

VARIABLES = (frame.ONE_MODEL, frame.ONE_CANDIDATE, frame.STREAMS)
"""One model and one candidate: an interval is of one rollout."""
IN = Scope(tuple(variable.name for variable in VARIABLES))
