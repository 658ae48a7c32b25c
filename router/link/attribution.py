"""Messages that ask and tell which variant gave an answer. `penumbra.router.link.messages` has all.

A request, and a response that an engine stores, is known to the one gateway process that relayed
it. Another one that needs to know asks the control process, which asks all.
"""

import msgspec


class Attribution(msgspec.Struct, frozen=True):
    """The variant that served a request, with its model and slice."""

    model: str
    variant: str
    slice: str


class Locate(msgspec.Struct, frozen=True, tag="locate"):
    """Asks which variant gave a stored response, which a request goes on from."""

    nonce: int
    response_id: str
    tenant: str
    """The tenant that got the response."""


class Located(msgspec.Struct, frozen=True, tag="located"):
    """The answer to a `Locate`; the attribution is None if no other gateway knows the response."""

    nonce: int
    attribution: Attribution | None


class Seek(msgspec.Struct, frozen=True, tag="seek"):
    """Asks a gateway which variant served this request, or gave this response."""

    nonce: int
    request_id: str
    """Id of the request or of the response."""
    tenant: str


class Found(msgspec.Struct, frozen=True, tag="found"):
    """The answer to a `Seek`; the attribution is None if another process relayed the answer."""

    nonce: int
    attribution: Attribution | None
