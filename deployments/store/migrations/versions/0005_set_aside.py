"""Table of rows that a repair has set aside."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "set_aside",
        sa.Column("id", big, primary_key=True, autoincrement=True),
        sa.Column("source", sa.String(64), nullable=False),
        # Of an event; its epoch stays taken.
        sa.Column("epoch", sa.BigInteger, nullable=True),
        sa.Column("model", sa.String(256), nullable=True),
        sa.Column("kind", sa.String(32), nullable=True),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("row", sa.Text, nullable=False),
        if_not_exists=True,
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("set_aside")
