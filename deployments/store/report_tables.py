"""Tables of reports, and of the runs that each is of."""

import sqlalchemy as sa

_metadata = sa.MetaData()
_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")

REPORTS = sa.Table(
    "reports",
    _metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("source", sa.String),
    sa.Column("incarnation", sa.String),
    sa.Column("seq", sa.BigInteger),
    sa.Column("at", sa.String),
    sa.Column("payload", sa.Text),
)
REPORT_RUNS = sa.Table(
    "report_runs",
    _metadata,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("report", _ID, primary_key=True),
)
