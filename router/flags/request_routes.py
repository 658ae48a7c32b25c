"""Routes of the engines' API by name, as slices, rules and rollouts know them. Pure."""

CHAT = "chat"
COMPLETIONS = "completions"
RESPONSES = "responses"
MESSAGES = "messages"
OTHER_ROUTE = "other"
"""Every path that has no name."""

ROUTES: dict[bytes, str] = {
    b"/v1/chat/completions": CHAT,
    b"/v1/completions": COMPLETIONS,
    b"/v1/responses": RESPONSES,
    b"/v1/embeddings": "embeddings",
    b"/tokenize": "tokenize",
    b"/detokenize": "detokenize",
    b"/v1/chat/completions/batch": "chat_batch",
    b"/v1/messages": MESSAGES,
    b"/v1/messages/count_tokens": "count_tokens",
    b"/v1/audio/transcriptions": "transcriptions",
    b"/v1/audio/translations": "translations",
    b"/v1/systemone": "systemone",
    b"/generative_scoring": "generative_scoring",
    b"/v2/embed": "embed",
    b"/pooling": "pooling",
    b"/classify": "classify",
    b"/score": "score",
    b"/v1/score": "score",
    b"/rerank": "rerank",
    b"/v1/rerank": "rerank",
    b"/v2/rerank": "rerank",
}
"""Path -> name of its route; several paths may be one route."""

ROUTE_NAMES = tuple(dict.fromkeys(ROUTES.values()))


def route_of(target: bytes) -> str:
    """Return the name of a request's route.

    Args:
        target: Its target in origin form, query included.
    """
    found = ROUTES.get(target)
    return found if found is not None else ROUTES.get(target.partition(b"?")[0], OTHER_ROUTE)
