"""`penumbra.yaml` and rollout files: their models, how they are read, and how errors are worded."""
