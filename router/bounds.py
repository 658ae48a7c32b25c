"""Bounds that follow from each other: of links, tables, bodies, reports and frames. Pure.

A bound stands here because another one has to be larger or smaller than it. Everything that sends,
takes or stores one of these derives its own from here; `tests/unit/router/test_bounds.py` holds the
relations, and `docs/control-plane.md` lists them (*Bounds*).

    LINK_BYTES ──► TABLE_BYTES ──► FLAG_BODY_BYTES      a flag that is accepted can be delivered
         └───────► REPORT_ROWS, DETAIL_CHARS, MODELS    so can reports, and signs of life
    FRAME_BYTES ─► COMPARED_BYTES ──► BODY_BYTES        a request that is accepted can be compared
"""

from typing import Final

LINK_BYTES: Final = 16 * 1024 * 1024
"""Largest message of a link, on both of its ends; a larger one ends the connection."""
ENVELOPE_BYTES: Final = 64 * 1024
"""Room in it for everything beside a routing table: the table's name and the message's type."""
TABLE_BYTES: Final = LINK_BYTES - ENVELOPE_BYTES
"""Largest routing table as JSON, with all that kills, rollbacks and rollouts may yet add to it
(`penumbra.deployments.history.table_size`)."""
FLAG_BODY_BYTES: Final = TABLE_BYTES
"""Largest body of the admin API with whole flags."""
ADMIN_BODY_BYTES: Final = 64 * 1024
"""Largest body of an admin route that states no other bound."""
SPEC_BODY_BYTES: Final = 1024 * 1024
"""Largest body with a rollout's spec, or with a notification of Alertmanager."""

MODELS: Final = 1000
"""Models of an installation: a sign of life names as many (`Renew`, `Beat`)."""
MODEL_NAME_CHARS: Final = 256
"""Longest name of a model: it is a column of an index in the store."""
EVENT_BYTES: Final = 4 * TABLE_BYTES
"""Largest stored event: a rollout's, with the flag before and after, and its spec twice."""
HISTORY_BYTES: Final = EVENT_BYTES
"""Payload after which an answer with events ends, however many were asked for: at least one fits.
"""
STORED_VALUE_BYTES: Final = 1_000_000_000
"""Largest value that SQLite and PostgreSQL hold."""

REPORT_ROWS: Final = 1000
"""Most pairs of a report, and other rows (counts, sheds, trips, tests) after which it takes no
further run."""
DETAIL_CHARS: Final = 1000
"""Most characters of a detail in a report, as sent; more are taken from older processes."""

FRAME_BYTES: Final = 32 * 1024 * 1024
"""Largest frame of a mirrored request on the comparator's socket."""
COMPARED_BYTES: Final = FRAME_BYTES // 2
"""Largest request and answer together that are mirrored; what is larger is shed, `too_large`. The
rest of a frame is for all other fields."""
BODY_BYTES: Final = COMPARED_BYTES
"""Largest body that a gateway takes unless `limits.body_bytes` says otherwise."""
