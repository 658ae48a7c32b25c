"""Table of handled alert firings."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "alerts",
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("starts_at", sa.String(40), primary_key=True),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("candidate", sa.String(64), nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_alerts_at", "alerts", ["at"], if_not_exists=True)


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("alerts")
