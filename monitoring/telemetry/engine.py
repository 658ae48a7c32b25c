"""Metrics of the engines that Penumbra uses, by the names that vLLM gives them. Pure.

vLLM says `vllm:num_requests_running`; the same engine scraped through Ray's exporter says
`ray_vllm_num_requests_running` (newer Ray: `ray_vllm:...`). Recording rules give both one name,
`penumbra_engine_...`, with the labels `model`, `variant` and `replica` that discovery adds.
"""

from dataclasses import dataclass

from penumbra.monitoring.telemetry.metric import Kind

PROCESS_KIND = "engine"
"""The value of the label `process_kind`; see `metric.Process` for ours."""
PLAIN_PREFIX = "vllm:"
RAY_PREFIX = "ray_vllm_"
PREFIXES = (PLAIN_PREFIX, RAY_PREFIX, "ray_vllm:")
"""All prefixes of vLLM's names; if a metric comes in several forms, the first counts."""


@dataclass(frozen=True, slots=True)
class EngineMetric:
    """One metric of vLLM and its name here."""

    name: str
    """The recorded name, which rules and dashboards use."""
    source: str
    """vLLM's name without prefix; of a histogram without `_bucket`."""
    kind: Kind
    help: str
    is_sum: bool = True
    """Whether several series of one replica (by engine or label) are added up; else the largest."""

    @property
    def sample_names(self) -> tuple[str, ...]:
        """The names under which its samples are queried."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)


RUNNING = EngineMetric(
    "penumbra_engine_requests_running", "num_requests_running", Kind.GAUGE,
    "Requests in the engine's batch.",
)  # fmt: skip
WAITING = EngineMetric(
    "penumbra_engine_requests_waiting", "num_requests_waiting", Kind.GAUGE,
    "Requests that wait for a place in the batch.",
)  # fmt: skip
KV_CACHE = EngineMetric(
    "penumbra_engine_kv_cache_usage_ratio", "kv_cache_usage_perc", Kind.GAUGE,
    "Share of the KV cache that is taken.", is_sum=False,
)  # fmt: skip
PREEMPTIONS = EngineMetric(
    "penumbra_engine_preemptions_total", "num_preemptions_total", Kind.COUNTER,
    "Requests put back because the KV cache was full.",
)  # fmt: skip
PROMPT_TOKENS = EngineMetric(
    "penumbra_engine_prompt_tokens_total", "prompt_tokens_total", Kind.COUNTER,
    "Prompt tokens that were processed, scores included.",
)  # fmt: skip
GENERATION_TOKENS = EngineMetric(
    "penumbra_engine_generation_tokens_total", "generation_tokens_total", Kind.COUNTER,
    "Tokens that were generated, shadow answers included.",
)  # fmt: skip
FINISHED = EngineMetric(
    "penumbra_engine_finished_requests_total", "request_success_total", Kind.COUNTER,
    "Requests that the engine finished, scores included.",
)  # fmt: skip
QUEUE_SECONDS = EngineMetric(
    "penumbra_engine_queue_seconds", "request_queue_time_seconds", Kind.HISTOGRAM,
    "Time that requests waited in the engine.",
)  # fmt: skip

METRICS = (
    RUNNING, WAITING, KV_CACHE, PREEMPTIONS, PROMPT_TOKENS, GENERATION_TOKENS, FINISHED,
    QUEUE_SECONDS,
)  # fmt: skip
