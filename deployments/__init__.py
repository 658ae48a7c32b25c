"""The rollout: specs, store, controller, admin API."""
