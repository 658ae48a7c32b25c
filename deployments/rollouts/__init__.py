"""The rollout itself: its spec, its record, its transitions and the decision. Pure."""
