"""Names of OpenTelemetry's semantic conventions. Pure.

The conventions for generative AI are still in development; this is the one place to follow them.
https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from typing import Any

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
SYSTEM = "gen_ai.system"
"""Name of `gen_ai.provider.name` up to version 1.36."""
REQUEST_MODEL = "gen_ai.request.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"

ERROR_TYPE = "error.type"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

FLAG_EVALUATION = "feature_flag.evaluation"
"""The event of one decision."""
FLAG_KEY = "feature_flag.key"
FLAG_PROVIDER = "feature_flag.provider.name"
FLAG_VARIANT = "feature_flag.result.variant"
FLAG_REASON = "feature_flag.result.reason"
FLAG_VERSION = "feature_flag.version"

LATEST = "gen_ai_latest_experimental"
"""The value of OTEL_SEMCONV_STABILITY_OPT_IN that leaves out the names before."""
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/chat/completions/batch": "chat",
    "/v1/messages": "chat",
    "/v1/systemone": "chat",
    "/v1/audio/transcriptions": "transcribe",
    "/v1/audio/translations": "transcribe",
    "/v2/embed": "embeddings",
    "/pooling": "pooling",
    "/classify": "classify",
    "/score": "score",
    "/v1/score": "score",
    "/generative_scoring": "score",
    "/rerank": "rerank",
    "/v1/rerank": "rerank",
    "/v2/rerank": "rerank",
    "/tokenize": "tokenize",
    "/detokenize": "detokenize",
    "/v1/messages/count_tokens": "tokenize",
}
"""Hot route -> operation; the conventions name the first three only."""
GATEWAY = "penumbra"
ENGINE = "vllm"
"""Providers: the gateway for clients, an engine with vLLM's API for the gateway."""


def is_latest_wanted(opt_in: str) -> bool:
    """Whether a value of OTEL_SEMCONV_STABILITY_OPT_IN, a list, asks for the latest names only."""
    return LATEST in (item.strip() for item in opt_in.split(","))


def inference(operation: str, provider: str, *, is_latest: bool) -> dict[str, Any]:
    """The attributes that mark a span as one of generative AI."""
    names = {OPERATION: operation, PROVIDER: provider}
    return names if is_latest else {**names, SYSTEM: provider}
