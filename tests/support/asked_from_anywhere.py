"""Hook of schemathesis: each request comes from another address, as if a proxy had passed it on.

The control process answers refused logins of one address ever later; hundreds of them would take
longer than everything else that a test asks.
"""

import itertools
from ipaddress import IPv4Address

import schemathesis

_FIRST = IPv4Address("10.0.0.1")
_numbers = itertools.count()


@schemathesis.hook
def before_call(context: object, case: schemathesis.Case, kwargs: object) -> None:
    """Name the next address."""
    del context, kwargs
    case.headers["X-Forwarded-For"] = str(_FIRST + next(_numbers))
