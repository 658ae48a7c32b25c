"""The hot routes: paths whose POST requests go to a variant. Pure."""

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
"""A variant answers POST on these paths; the gateway itself answers everything else."""


def hot_path(target: bytes) -> bytes | None:
    """The request target in origin form, query included, if its path is hot; else None."""
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
