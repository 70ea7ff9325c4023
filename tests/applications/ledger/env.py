"""Alembic's environment, as `alembic init` writes it, with the filter of docs/operations.md."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import create_engine, pool

from applications.ledger.models import Base
from applications.ledger.sharded import filters

engine = create_engine(os.environ["LEDGER_URL"], poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        compare_server_default=True,
        **filters(connection),
    )
    with context.begin_transaction():
        context.run_migrations()
