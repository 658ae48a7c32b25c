"""One request: flags, slices, plan, dispatch, failover, the OpenAI-compatible surface."""
