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
        sa.Column("model", sa.String(256), nullable=True),
        sa.Column("payload", sa.Text, nullable=False),
        # Earlier releases made tables outside the transaction, and could be killed between two.
        if_not_exists=True,
    )
    op.create_index("ix_events_model", "events", ["model"], if_not_exists=True)
    op.create_table(
        "identity", sa.Column("store", sa.String(36), primary_key=True), if_not_exists=True
    )
    identity = sa.table("identity", sa.column("store"))
    if op.get_bind().execute(sa.select(identity.c.store)).first() is None:
        op.bulk_insert(identity, [{"store": str(uuid.uuid4())}])


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("identity")
    op.drop_table("events")
