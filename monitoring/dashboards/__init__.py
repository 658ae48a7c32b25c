"""The Grafana dashboards as typed code; `python -m penumbra.monitoring.dashboards` writes json/.

Nothing that runs in production imports this package: it needs Grafana's SDK, of the `dev` extra.
Metrics and labels come from `penumbra.monitoring.telemetry`: a name that does not exist cannot be
asked for.

Reading order: promql (queries), options and panels (one panel), frame (one dashboard), then
rollout, quality, traffic, engines.
"""
