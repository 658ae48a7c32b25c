"""Definition of a metric: name, kind, unit, labels from closed sets, one sentence of help. Pure.

Names are those of PromQL: base units, `_total` on counters and on nothing else, no ids in labels.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import prod


class Kind(StrEnum):
    """Prometheus's types of metrics. An info metric is always 1; its labels carry the facts."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class Process(StrEnum):
    """Kinds of processes with metrics: values of the label `process_kind` that discovery adds."""

    GATEWAY = "gateway"
    COMPARATOR = "comparator"
    CONTROL = "control"


class Unit(StrEnum):
    """Base units; each but the plain number is the suffix of the metric's name."""

    NUMBER = ""
    SECONDS = "seconds"
    BYTES = "bytes"
    RATIO = "ratio"
    """A share, or a mean of shares, between 0 and 1 (harm: -1 and 1)."""
    NATS = "nats"
    """Natural logarithms."""


LATENCY_BUCKETS_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
"""Buckets for answers: a millisecond to two minutes."""
FAST_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Buckets for what should take milliseconds: tokens, commits, acknowledgements."""
RATIO_BUCKETS = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Buckets for shares that are usually near 0."""


@dataclass(frozen=True, slots=True)
class Label:
    """One label and the set that its values come from."""

    name: str
    help: str
    values: tuple[str, ...] = ()
    """Every value there is; empty: names from the configuration (models, variants, slices)."""
    most: int = 0
    """How many configured names the cardinality budget counts with."""
    is_implied: bool = False
    """Another label of the metric determines it, so it adds no series."""

    @property
    def size(self) -> int:
        """The factor by which the label multiplies the series of a metric."""
        return 1 if self.is_implied else len(self.values) or self.most


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of one kind of process."""

    name: str
    kind: Kind
    help: str
    """One sentence, with a full stop."""
    process: Process
    labels: tuple[Label, ...] = ()
    unit: Unit = Unit.NUMBER
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, without +Inf."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels' names, in order."""
        return tuple(label.name for label in self.labels)

    @property
    def sample_names(self) -> tuple[str, ...]:
        """The names under which its samples are queried."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)

    @property
    def most_series(self) -> int:
        """Series of one process at most, by the labels' sizes."""
        combinations = prod(label.size for label in self.labels)
        # A bucket for each bound and +Inf, the sum and the count.
        return combinations * (len(self.buckets) + 3 if self.kind is Kind.HISTOGRAM else 1)
