"""The builds that a run compares, as reports tell of them. Pure."""

from collections.abc import Mapping

from penumbra.monitoring import build_facts
from penumbra.monitoring.observations import RunReport


class KnownBuilds:
    """Fingerprints and facts of a run's two builds; notes when one is exchanged."""

    def __init__(self) -> None:
        self.fingerprints: dict[str, str] = {}
        """Variant -> digest."""
        self.facts: dict[str, dict[str, str]] = {}
        """Variant -> facts of which the digest is made; none from processes that tell only it."""

    def change(self, report: RunReport) -> str | None:
        """Take what a report tells; returns what it says has changed, if anything has.

        Facts are compared one by one, those that both readings have. A digest that came without
        facts is compared only with another such one: it was made another way.
        """
        for variant, told in sorted(report.fingerprints.items()):
            found = self._change(variant, told, report.builds.get(variant, {}))
            if found is not None:
                return found
        return None

    def _change(self, variant: str, told: str, facts: Mapping[str, str]) -> str | None:
        known = self.facts.get(variant, {})
        if facts:
            changes = build_facts.differences(known, facts)
            if changes:
                named = ", ".join(
                    f"{name} {now}, was {was}" for name, (was, now) in changes.items()
                )
                return f"{variant} is another build: {named}"
            known = self.facts[variant] = {**known, **facts}
            self.fingerprints[variant] = build_facts.digest(known)
        elif not known:
            was = self.fingerprints.setdefault(variant, told)
            if was != told:
                return f"{variant} is {told[:16]} now, was {was[:16]}"
        return None
