"""Tables of the events and of the store's identity."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make both tables."""
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "events",
        sa.Column("seq", big, primary_key=True, autoincrement=True),
        # One event makes one epoch: of two writers the second one fails here.
        sa.Column("epoch", sa.BigInteger, nullable=False, unique=True),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("model", sa.String(256), nullable=True, index=True),
        sa.Column("payload", sa.Text, nullable=False),
    )
    identity = op.create_table("identity", sa.Column("store", sa.String(36), primary_key=True))
    op.bulk_insert(identity, [{"store": str(uuid.uuid4())}])


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("identity")
    op.drop_table("events")
