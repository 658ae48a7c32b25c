"""Scoring route of hosted replicas: `POST /penumbra/v1/score`, cheaper than completions.

vLLM's completions API writes every row of the prompt as JSON objects with decoded text: on a busy
engine that costs more than what the model does. Here only the response's rows come back, as two
arrays, and nothing is decoded (docs/shadow.md has the figures).
`penumbra.router.upstream.scoring_wire` is the other end; with any other server it uses the
completions API.

`flat_logprobs` and `app.state.engine_client` are vLLM's own business; `cpu` pins its version, and
`tests/e2e/test_hosting.py` holds both ways to the same numbers.
"""

import math
import uuid
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from penumbra.router.upstream.scoring_wire import SHORT_PATH

_BAD_REQUEST = 400


def vllm_sampling() -> Any:
    """The engine's parameters for a score; imports vLLM."""
    from vllm import SamplingParams

    return SamplingParams(
        max_tokens=1, temperature=0.0, prompt_logprobs=1, detokenize=False, flat_logprobs=True
    )


def add_scoring_route(app: Starlette, make_sampling: Callable[[], Any] = vllm_sampling) -> None:
    """Serve scores from the engine that `app` serves.

    Args:
        app: vLLM's application; its state holds the engine.
        make_sampling: Makes the engine's parameters.
    """

    async def score(request: Request) -> Response:
        """The log-probability, and the greedy choice, of each token from `start` on.

        Body: `{"token_ids": [...], "start": n}`; answer: `{"logprobs": [...], "top_ids": [...],
        "top_logprobs": [...]}`, a log-probability that is no number as null.
        """
        try:
            body = await request.json()
        except ValueError:
            return _refuse("the body is not JSON")
        if not _is_scorable(body):
            return _refuse("wanted token_ids, integers, and 1 <= start < len(token_ids)")
        engine = request.app.state.engine_client
        rows = await _rows(engine, body["token_ids"], make_sampling())
        return JSONResponse(_compact(rows, body["start"]))

    app.add_route(SHORT_PATH, score, methods=["POST"])


def _is_scorable(body: Any) -> bool:
    if not isinstance(body, dict):
        return False
    token_ids, start = body.get("token_ids"), body.get("start")
    if not isinstance(token_ids, list) or type(start) is not int:
        return False
    return 1 <= start < len(token_ids) and all(type(token) is int for token in token_ids)


async def _rows(engine: Any, token_ids: list[int], sampling: Any) -> Any:
    # What the engine refuses (a token outside the vocabulary, too many tokens) raises, and vLLM's
    # own handlers make an answer of it. Cancelled, the engine stops by itself.
    rows = None
    identity = f"score-{uuid.uuid4().hex}"
    async for output in engine.generate({"prompt_token_ids": token_ids}, sampling, identity):
        rows = output.prompt_logprobs or rows
    return rows


def _compact(rows: Any, start: int) -> dict[str, list[float | None] | list[int]]:
    """From vLLM's flat rows: in each the given token comes first, then the likeliest."""
    logprobs: list[float | None] = []
    top_ids: list[int] = []
    top_logprobs: list[float | None] = []
    for position in range(start, len(rows)):
        first, end = rows.start_indices[position], rows.end_indices[position]
        top = min(first + 1, end - 1)
        logprobs.append(_finite(rows.logprobs[first]))
        top_ids.append(rows.token_ids[top])
        top_logprobs.append(_finite(rows.logprobs[top]))
    return {"logprobs": logprobs, "top_ids": top_ids, "top_logprobs": top_logprobs}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _refuse(message: str) -> Response:
    error = {"message": message, "type": "invalid_request_error", "code": _BAD_REQUEST}
    return JSONResponse({"error": error}, status_code=_BAD_REQUEST)
