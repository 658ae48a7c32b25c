"""The demo: model, tasks, training, builds, traffic and story. It needs a clone."""
