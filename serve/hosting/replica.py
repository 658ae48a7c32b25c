"""One replica of one variant: vLLM's own HTTP application, reached by HAProxy without a detour.

The deployment class imports neither vLLM nor `ray.serve.llm` before it is constructed, so that the
process that deploys it stays small and quick (those imports take 10 s and 500 MB).
"""

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any

from penumbra.serve.hosting.disconnect import DisconnectMiddleware

LOG_VARIABLE = "PENUMBRA_ENGINE_LOG"
"""File for the output of a replica and its engine; if unset, it goes to Ray's log folder."""

_log = logging.getLogger("ray.serve")


class VariantReplica:
    """Ray Serve deployment class of a variant; `ray_serve.ingress()` mounts what it builds.

    Args:
        llm_config: Keyword arguments of `ray.serve.llm.LLMConfig`.
        is_local: The model source is a folder on this node.
        in_core: Run the (single, CPU) worker inside the engine core's process.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, llm_config: dict[str, Any], *, is_local: bool, in_core: bool
    ) -> None:
        _redirect_output(os.environ.get(LOG_VARIABLE))
        self._engine_args = llm_config["engine_kwargs"]
        source = llm_config["model_loading_config"]["model_source"]
        self._weight_facts = asyncio.create_task(
            asyncio.to_thread(_weight_facts, source, is_local=is_local)
        )
        from ray.serve.llm import LLMConfig, LLMServer

        from penumbra.serve.hosting.engine import InCoreEngine, LocalSource

        callback = {"callback_config": {"callback_class": LocalSource}}
        config = LLMConfig(**llm_config, **(callback if is_local else {}))
        self._server = LLMServer.sync_init(config, engine_cls=InCoreEngine if in_core else None)
        # Not `LLMServer.start`: it would also start Ray's usage-telemetry actor (200 MB).
        self._server.engine = self._server._engine_cls(config)  # noqa: SLF001
        await self._server.engine.start()

    async def __serve_build_asgi_app__(self) -> Any:
        """Ray Serve's hook for an application that exists only once the engine has started."""
        from penumbra.serve.hosting.build_route import add_build_route
        from penumbra.serve.hosting.scoring import add_scoring_route

        app = await self._server.__serve_build_asgi_app__()
        add_scoring_route(app)
        add_build_route(app, self._weight_facts, self._engine_args)
        app.add_middleware(DisconnectMiddleware)  # Outermost.
        return app

    async def check_health(self) -> None:
        """Ray Serve calls this every `health_check_period_s`.

        A dead engine never comes back in its process. Ray would ask three times and then drain
        the replica for the sake of requests that have all failed already; leaving at once lets
        HAProxy stop routing here, and Ray start the next replica, several seconds sooner.
        """
        try:
            await self._server.check_health()
        except Exception:  # noqa: BLE001  # whatever it is, the engine is dead
            _log.exception("variant_engine_dead")
            sys.stderr.flush()
            os._exit(1)


def _weight_facts(source: str, *, is_local: bool) -> dict[str, str]:
    from penumbra.serve.hosting.build_route import weight_facts

    try:
        return weight_facts(source, is_local=is_local)
    except Exception as error:  # noqa: BLE001 - a folder of another kind is served as well
        _log.warning("weights_not_read", extra={"source": source, "error": str(error)})
        return {}


def _redirect_output(path: str | None) -> None:
    """Send this process's output, and so its engine's, to one file per variant."""
    if not path:
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
