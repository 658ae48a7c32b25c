"""Variables and scope that all parts of the rollout dashboard share."""

from penumbra.monitoring.dashboards import frame
from penumbra.monitoring.dashboards.options import ORANGE
from penumbra.monitoring.dashboards.promql import Scope

VARIABLES = (frame.MODEL, frame.CANDIDATE, frame.STREAMS)
IN = Scope(tuple(variable.name for variable in VARIABLES))
PAIR = "model, candidate"
YES_NO = {"0": ("no", ""), "1": ("yes", ORANGE)}
