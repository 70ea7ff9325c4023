"""more: columns added, dropped, renamed and retyped, an index, a check, a label of an enum, a table"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("alter type standing add value if not exists 'gone'")
    op.add_column("entry", sa.Column("place", sa.String(40), nullable=True))
    op.add_column("entry", sa.Column("weight", sa.Integer(), server_default="7", nullable=False))
    op.execute("update entry set place = 'here' where id % 2 = 0")
    op.alter_column("entry", "done", new_column_name="closed")
    op.create_index(op.f("ix_entry_place"), "entry", ["place"])
    op.create_check_constraint(op.f("ck_entry_weight"), "entry", "weight > 0")
    op.drop_index("ix_entry_note_lower", table_name="entry")
    op.alter_column("entry", "place", comment="where")
    op.add_column("account", sa.Column("phone", sa.String(20), server_default="", nullable=False))
    op.alter_column("account", "email", type_=sa.String(200), existing_nullable=False)
    op.drop_constraint(op.f("ck_account_credit"), "account", type_="check")
    op.rename_table("entry", "posting")
    op.execute("update posting set weight = 8 where id = 1")
    op.create_table(
        "label",
        sa.Column("id", sa.Integer(), sa.Identity(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("word", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_label_account_id_account")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label")),
        sa.UniqueConstraint("account_id", "word", name=op.f("uq_label_account_id_word")),
    )


def downgrade() -> None:
    op.drop_table("label")
    op.rename_table("posting", "entry")
    op.create_check_constraint(op.f("ck_account_credit"), "account", "credit >= 0")
    op.alter_column("account", "email", type_=sa.String(120), existing_nullable=False)
    op.drop_column("account", "phone")
    op.create_index("ix_entry_note_lower", "entry", [sa.literal_column("lower(note)")])
    op.drop_constraint(op.f("ck_entry_weight"), "entry", type_="check")
    op.drop_index(op.f("ix_entry_place"), table_name="entry")
    op.alter_column("entry", "closed", new_column_name="done")
    op.drop_column("entry", "weight")
    op.drop_column("entry", "place")
