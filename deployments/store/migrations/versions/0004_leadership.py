"""Table of the fencing lease: which control process may write."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, with its one row: no process leads."""
    leadership = op.create_table(
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
    )
    row = {"id": 1, "fence": 0, "holder": "", "address": "", "generation": 1}
    times = {"renewed_at": 0.0, "until": 0.0, "leases_until": 0.0}
    op.bulk_insert(leadership, [row | times])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("leadership")
