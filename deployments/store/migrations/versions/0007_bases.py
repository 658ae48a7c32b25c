"""Table of the evidence that stands for reports which were deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "evidence_bases",
        sa.Column("run", sa.String(256), primary_key=True),
        # The last report's id that it holds.
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("shape", sa.String(64), nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
        # Whether reports that it holds were deleted.
        sa.Column("is_used", sa.Boolean, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        if_not_exists=True,
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("evidence_bases")
