"""Routes of vLLM's server that the gateway does not relay, each with the reason. Pure."""

_OPERATES = "it operates one engine; ask that engine itself"
_TRAINS = "it changes the weights or the state of one engine; ask that engine itself"
_WORKER = "it is a step of serving that is spread over several engines"
_STATE = "it tells the state of one engine; ask that engine itself"
_ABORTS = "it ends requests by ids that the gateway does not know; close the connection instead"
_FORM = "its body is a form with a file"
_DOCUMENTS = "the documents of an engine are at that engine"

REFUSED: dict[str, str] = {
    "/v1/realtime": "it is a WebSocket, which is bound to one engine",
    "/v1/audio/transcriptions": _FORM,
    "/v1/audio/translations": _FORM,
    "/invocations": "it names no route; ask the route itself",
    "/ping": "ask /health or /ready",
    "/load": _STATE,
    "/version": _STATE,
    "/kv_event_sources": _STATE,
    "/server_info": _STATE,
    "/tokenizer_info": _STATE,
    "/is_sleeping": _STATE,
    "/is_paused": _STATE,
    "/is_scaling_elastic_ep": _STATE,
    "/weight_info": _STATE,
    "/get_world_size": _STATE,
    "/fault_tolerance/status": _STATE,
    "/fault_tolerance/apply": _OPERATES,
    "/v1/load_lora_adapter": _OPERATES,
    "/v1/unload_lora_adapter": _OPERATES,
    "/start_profile": _OPERATES,
    "/stop_profile": _OPERATES,
    "/reset_prefix_cache": _OPERATES,
    "/reset_mm_cache": _OPERATES,
    "/reset_encoder_cache": _OPERATES,
    "/collective_rpc": _OPERATES,
    "/sleep": _OPERATES,
    "/wake_up": _OPERATES,
    "/release_kv_cache_memory": _OPERATES,
    "/scale_elastic_ep": _OPERATES,
    "/pause": _TRAINS,
    "/resume": _TRAINS,
    "/init_weight_transfer_engine": _TRAINS,
    "/shutdown_weight_transfer_engine": _TRAINS,
    "/start_weight_update": _TRAINS,
    "/start_draft_weight_update": _TRAINS,
    "/update_weights": _TRAINS,
    "/finish_weight_update": _TRAINS,
    "/update_weight_version": _TRAINS,
    "/weight_checker": _TRAINS,
    "/abort_requests": _ABORTS,
    "/inference/v1/abort_requests": _ABORTS,
    "/inference/v1/generate": _WORKER,
    "/v1/chat/completions/render": _WORKER,
    "/v1/chat/completions/derender": _WORKER,
    "/v1/completions/render": _WORKER,
    "/v1/completions/derender": _WORKER,
    "/v1/messages/render": _WORKER,
    "/v1/responses/render": _WORKER,
    "/cohere/v2/chat/render": _WORKER,
    "/cohere/v2/chat": "streams of this API end in a way that the gateway does not know",
    "/docs": _DOCUMENTS,
    "/docs/oauth2-redirect": _DOCUMENTS,
    "/redoc": _DOCUMENTS,
    "/openapi.json": _DOCUMENTS,
    "/static": _DOCUMENTS,
}
"""Path -> why it is answered with 404."""
