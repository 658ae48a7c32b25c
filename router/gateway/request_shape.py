"""Makes the shape of a request: what its dispatch must know of it. Pure."""

from penumbra.router.dispatch.answer_check import AnswerKind
from penumbra.router.dispatch.request_shape import RequestShape
from penumbra.router.gateway.body_peek import BodyPeek

_STREAMS = AnswerKind(is_stream=True)
_WHOLE = AnswerKind(is_stream=False)
_ANY_BYTES = AnswerKind(is_stream=None, is_json=False)
_AUDIO = b"/v1/audio/"
_VECTORS = (b"/v1/embeddings", b"/pooling")
_BYTES = ("bytes", "bytes_only")
"""Values of `encoding_format` for which vLLM answers with the vectors' bytes instead of JSON."""


def shape_of(path: bytes, peek: BodyPeek) -> RequestShape:
    """The shape of a request.

    Args:
        path: Its target.
        peek: The fields of its body that were read.
    """
    most_tokens = peek.max_tokens or peek.max_completion_tokens or peek.max_output_tokens
    goes_on = peek.previous_response_id is not None
    if peek.stream is True and not path.startswith(_AUDIO):
        return RequestShape(_STREAMS, peek.may_be_continued, most_tokens, goes_on)
    is_bytes = peek.encoding_format in _BYTES and path.startswith(_VECTORS)
    kind = _ANY_BYTES if is_bytes or path.startswith(_AUDIO) else _WHOLE
    return RequestShape(kind, False, most_tokens, goes_on)
