"""Tables of reports, users' judgements, and times of rollbacks."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "reports",
        # The order in which they are folded.
        sa.Column("id", big, primary_key=True, autoincrement=True),
        sa.Column("source", sa.String(256), nullable=False),
        sa.Column("incarnation", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        # A report that is sent twice is stored once.
        sa.UniqueConstraint("source", "incarnation", "seq"),
        if_not_exists=True,
    )
    op.create_table(
        "report_runs",
        sa.Column("run", sa.String(64), primary_key=True),
        sa.Column("report", big, primary_key=True),
        if_not_exists=True,
    )
    op.create_table(
        "feedback",
        sa.Column("tenant", sa.String(256), primary_key=True),
        sa.Column("request_id", sa.String(256), primary_key=True),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("variant", sa.String(64), nullable=False),
        sa.Column("slice", sa.String(64), nullable=False),
        sa.Column("judgement", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_feedback_at", "feedback", ["at"], if_not_exists=True)
    op.create_table(
        "rollbacks",
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("candidate", sa.String(64), nullable=False),
        sa.Column("observed_at", sa.Float, nullable=True),
        sa.Column("durable_at", sa.Float, nullable=False),
        sa.Column("acknowledged_at", sa.Float, nullable=True),
        sa.Column("gateways", sa.Integer, nullable=False),
        if_not_exists=True,
    )


def downgrade() -> None:
    """Drop the tables."""
    for name in ("rollbacks", "feedback", "report_runs", "reports"):
        op.drop_table(name)
