"""Pictures of the dashboards, drawn with Grafana's own panels: `python -m scripts.pictures`."""
