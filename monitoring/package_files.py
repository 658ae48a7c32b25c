"""Dashboards, alert rules and their configurations, read from the installed package as text.

They ship as files, so neither Grafana's SDK nor a clone of the repository is needed to read them.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable

PACKAGE = "penumbra.monitoring"
RUNBOOKS = "https://penumbra.example.com/docs/runbooks"
"""Placeholder in the dashboards for the URL of the folder docs/runbooks."""
_RUNBOOKS_IN_RULES = "runbook_url: docs/runbooks/"
_RULES_IN_CONFIGURATION = "../rules/"


def read_dashboards(runbooks: str | None = None) -> dict[str, str]:
    """The Grafana dashboards as JSON, by file name.

    Args:
        runbooks: URL of a folder with the runbooks, no slash at its end; None leaves `RUNBOOKS`.
    """
    dashboards = _read_folder(files(PACKAGE) / "dashboards" / "json", ".json")
    if runbooks is None:
        return dashboards
    return {name: text.replace(RUNBOOKS, runbooks) for name, text in dashboards.items()}


def read_rules(runbooks: str | None = None) -> dict[str, str]:
    """The recording and alerting rules of Prometheus as YAML, by file name.

    Args:
        runbooks: URL of a folder with the runbooks, no slash at its end; None leaves the paths
            within the repository.
    """
    rules = _read_folder(files(PACKAGE) / "rules", ".yaml")
    if runbooks is None:
        return rules
    return {
        name: text.replace(_RUNBOOKS_IN_RULES, f"runbook_url: {runbooks}/")
        for name, text in rules.items()
    }


def read_configurations() -> dict[str, str]:
    """Example configurations of Prometheus and Alertmanager as YAML, by file name.

    Prometheus finds the rules in the folder `rules` beside its configuration.
    """
    prometheus = files(PACKAGE) / "prometheus" / "prometheus.yaml"
    alertmanager = files(PACKAGE) / "alertmanager" / "alertmanager.yaml"
    return {
        prometheus.name: prometheus.read_text("utf-8").replace(_RULES_IN_CONFIGURATION, "rules/"),
        alertmanager.name: alertmanager.read_text("utf-8"),
    }


def _read_folder(folder: Traversable, suffix: str) -> dict[str, str]:
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return {
        entry.name: entry.read_text("utf-8") for entry in entries if entry.name.endswith(suffix)
    }
