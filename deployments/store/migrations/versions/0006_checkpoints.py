"""Tables of checkpoints and of compacted reports, and indexes to find old rows page by page."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and the indexes."""
    op.create_table(
        "checkpoints",
        # A run, or the state.
        sa.Column("name", sa.String(256), primary_key=True),
        # The last report's id, or the epoch, that it holds.
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        if_not_exists=True,
    )
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "report_segments",
        sa.Column("run", sa.String(256), primary_key=True),
        sa.Column("first", big, primary_key=True, autoincrement=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("reports", sa.Integer, nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "report_senders",
        sa.Column("source", sa.String(256), primary_key=True),
        sa.Column("incarnation", sa.String(256), primary_key=True),
        # Of the last report that was compacted.
        sa.Column("seq", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_index("report_runs_report", "report_runs", ["report"], if_not_exists=True)
    op.create_index("feedback_at", "feedback", ["at"], if_not_exists=True)


def downgrade() -> None:
    """Drop them."""
    op.drop_index("feedback_at", "feedback")
    op.drop_index("report_runs_report", "report_runs")
    op.drop_table("report_senders")
    op.drop_table("report_segments")
    op.drop_table("checkpoints")
