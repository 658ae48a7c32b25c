"""The hot routes: those whose requests go to a variant. Pure."""

import httptools

HOT_PATHS = frozenset(
    {
        b"/v1/chat/completions",
        b"/v1/completions",
        b"/v1/responses",
        b"/v1/embeddings",
        b"/tokenize",
        b"/detokenize",
    }
)
"""POST on these is answered by a variant; everything else by the gateway itself."""


def hot_path(target: bytes) -> bytes | None:
    """A request target in origin form, query included, if its path is a hot one."""
    if target in HOT_PATHS:
        return target
    try:
        parsed = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return None
    if parsed.path not in HOT_PATHS:
        return None
    path: bytes = parsed.path
    return path if parsed.query is None else b"%b?%b" % (path, parsed.query)
