"""Table of the fencing lease: which control process may write."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, with its one row: no process leads."""
    op.create_table(
        "leadership",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("address", sa.String(256), nullable=False),
        # Unix seconds, by the database's clock.
        sa.Column("renewed_at", sa.Float(53), nullable=False),
        sa.Column("until", sa.Float(53), nullable=False),
        sa.Column("leases_until", sa.Float(53), nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.execute(
        "INSERT INTO leadership"
        " (id, fence, holder, address, renewed_at, until, leases_until, generation)"
        " SELECT 1, 0, '', '', 0, 0, 0, 1"
        " WHERE NOT EXISTS (SELECT id FROM leadership)"
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("leadership")
