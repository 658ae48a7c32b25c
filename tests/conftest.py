"""Hypothesis profiles of every test: `local`, and `ci` where CI is set."""

import os

from hypothesis import HealthCheck, settings

# A busy machine is slow; that is no finding. In CI the same examples come every time.
settings.register_profile(
    "local", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=False)
settings.load_profile("ci" if os.environ.get("CI") else "local")
