"""Report of observations that has a value which its field cannot have. Pure.

Its name can be read, so it can be refused by name instead of ending the connection, on which it
would come again.
"""

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class UnreadableReport:
    """A report that cannot be counted, by its name."""

    source: str
    process_start_id: str
    seq: int
    detail: str
    """The field at fault, as msgspec names it."""


class _ReportName(msgspec.Struct, tag="report"):
    """Name of a report, whatever else is in it."""

    source: str
    process_start_id: str = msgspec.field(name="incarnation")
    seq: int


_read_name = msgspec.json.Decoder(_ReportName).decode


def unreadable_report(text: str | bytes, error: msgspec.ValidationError) -> UnreadableReport | None:
    """Read the name of a report; None if the message is no report, or has no name.

    Args:
        text: A message that could not be read.
        error: The reason why.
    """
    try:
        name = _read_name(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return UnreadableReport(name.source, name.process_start_id, name.seq, str(error))
