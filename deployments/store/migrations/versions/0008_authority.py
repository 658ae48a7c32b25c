"""Column of events for the right by which each was made: role, identity, and the client's note."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is null in all events that are there."""
    names = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("events")}
    if "authority" not in names:
        op.add_column("events", sa.Column("authority", sa.Text, nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("events", "authority")
