"""Table of checkpoints, and indexes by which rows of no more use are found page by page."""

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
    op.create_index("report_runs_report", "report_runs", ["report"], if_not_exists=True)
    op.create_index("feedback_at", "feedback", ["at"], if_not_exists=True)


def downgrade() -> None:
    """Drop them."""
    op.drop_index("feedback_at", "feedback")
    op.drop_index("report_runs_report", "report_runs")
    op.drop_table("checkpoints")
