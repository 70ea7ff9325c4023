"""initial"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("email", sa.String(length=120), nullable=False),
        sa.Column("region", sa.String(length=2), server_default="de", nullable=False),
        sa.Column(
            "standing",
            sa.Enum("good", "late", name="standing"),
            server_default="good",
            nullable=False,
            comment="how he pays",
        ),
        sa.Column(
            "credit", sa.Numeric(precision=12, scale=2), server_default=sa.text("0"), nullable=False
        ),
        sa.Column(
            "made", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint("credit >= 0", name=op.f("ck_account_credit")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("email", "region", name=op.f("uq_account_email_region")),
        comment="who pays",
    )
    op.create_table(
        "kind",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_kind")),
        sa.UniqueConstraint("name", name=op.f("uq_kind_name")),
    )
    op.create_table(
        "entry",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("kind_id", sa.Integer(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=12, scale=2), nullable=False),
        sa.Column(
            "twice",
            sa.Numeric(precision=12, scale=2),
            sa.Computed("amount * 2", persisted=True),
            nullable=False,
        ),
        sa.Column("note", sa.String(), server_default="", nullable=False, comment="free text"),
        sa.Column("done", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "labels",
            postgresql.ARRAY(sa.String(length=20)),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column(
            "extra",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column(
            "made", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_entry_amount")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_entry_account_id_account")
        ),
        sa.ForeignKeyConstraint(
            ["kind_id"], ["kind.id"], name=op.f("fk_entry_kind_id_kind"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entry")),
    )
    op.create_index(op.f("ix_entry_account_id"), "entry", ["account_id"], unique=False)
    op.create_index(
        "ix_entry_account_made",
        "entry",
        ["account_id", sa.literal_column("made DESC")],
        unique=False,
    )
    op.create_index(
        "ix_entry_note_lower", "entry", [sa.literal_column("lower(note)")], unique=False
    )
    op.create_index(
        "ix_entry_open", "entry", ["account_id"], unique=False, postgresql_where=sa.text("NOT done")
    )


def downgrade() -> None:
    op.drop_index("ix_entry_open", table_name="entry", postgresql_where=sa.text("NOT done"))
    op.drop_index("ix_entry_note_lower", table_name="entry")
    op.drop_index("ix_entry_account_made", table_name="entry")
    op.drop_index(op.f("ix_entry_account_id"), table_name="entry")
    op.drop_table("entry")
    op.drop_table("kind")
    op.drop_table("account")
    op.execute("drop type standing")
