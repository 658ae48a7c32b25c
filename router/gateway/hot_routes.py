"""The hot routes: paths whose POST requests go to a variant. Pure."""

from penumbra.router.flags.request_routes import ROUTES

MESSAGES = b"/v1/messages"
"""Start of the paths of Anthropic's API."""

AUDIO = b"/v1/audio/"
"""Start of the paths whose bodies are forms with a file."""

HOT_PATHS = frozenset(ROUTES)
"""A variant answers POST on these paths; the gateway itself answers everything else."""


def credentials(path: bytes, headers: dict[bytes, bytes]) -> bytes | None:
    """The `authorization` header of a request, or what stands for it in Anthropic's API."""
    found = headers.get(b"authorization")
    if found is None and path.startswith(MESSAGES) and b"x-api-key" in headers:
        return b"Bearer " + headers[b"x-api-key"]
    return found


def hot_path(target: bytes) -> bytes | None:
    """The request target in origin form, query included, if its path is hot; else None.

    One slash behind the path is left out.
    """
    if target in HOT_PATHS:
        return target
    target = without_slash(target)
    return target if target.partition(b"?")[0] in HOT_PATHS else None


def without_slash(target: bytes) -> bytes:
    """A request target in origin form without a slash behind its path; `/` stays."""
    path, mark, query = target.partition(b"?")
    return path[:-1] + mark + query if path.endswith(b"/") and len(path) > 1 else target
