"""An application with SQLAlchemy's ORM over `postgresql+shardman`: its key statements go straight to owners."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pandas as pd
import polars as pl
import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from psycopg import conninfo
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.schema import CreateTable

from shardman.client.transactions import Transactions
from shardman.sqlalchemy import record_routes, shardman_connection
from shardman.testing import eventually
from shardman.testing.cluster import Cluster


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    email: Mapped[str]
    balance: Mapped[int] = mapped_column(server_default="0")
    entries: Mapped[list[Entry]] = relationship(back_populates="account", order_by="Entry.no")


class Entry(Base):
    """Beside its account, on the same node."""

    __tablename__ = "entry"
    account_id: Mapped[uuid.UUID] = mapped_column(
        sa.ForeignKey("account.id", name="entry_account"), primary_key=True
    )
    no: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    amount: Mapped[int]
    account: Mapped[Account] = relationship(back_populates="entries")


class Kind(Base):
    """A shared table."""

    __tablename__ = "kind"
    name: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str]


def url(cluster: Cluster, *nodes: int, **query: str) -> sa.URL:
    """All of them are tried, in this order."""
    where = [conninfo.conninfo_to_dict(cluster.dsn(n)) for n in nodes or (2, 3, 1)]
    return sa.URL.create(
        "postgresql+shardman",
        str(where[0]["user"]),
        cluster.password,
        database=str(where[0]["dbname"]),
        query={"host": tuple(f"{w['host']}:{w['port']}" for w in where), **query},
    )


@pytest.fixture(scope="module")
def bank(cluster: Cluster) -> Cluster:
    """The tables as SQLAlchemy makes them, then sharded and shared by the client's commands."""
    engine = sa.create_engine(url(cluster, 1))
    with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            # Keys between sharded tables come when they are sharded.
            connection.execute(CreateTable(table, include_foreign_key_constraints=[]))
    with engine.connect() as connection:
        db = shardman_connection(connection)
        for done in (
            db.create_hash_partitions(1, "account", "id", 6),
            db.create_hash_partitions(1, "entry", "account_id", 6, colocate_with="account"),
            db.create_shared_table("kind", 1),
        ):
            assert done.ok, done
        key = "foreign key (account_id) references account (id)"
        assert db.add_foreign_key("entry", "entry_account", key).ok
    engine.dispose()
    for node in (1, 2, 3):
        for name in ("account", "entry", "kind"):
            eventually(
                "the table is there",
                lambda node=node, name=name: (
                    cluster.value(node, f"select count(*) from {name}") == 0
                ),
                tolerate=psycopg.Error,
            )
    return cluster


@pytest.fixture
def engine(bank: Cluster) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url(bank), pool_pre_ping=True)
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(sa.delete(table))
    yield engine
    engine.dispose()


def fill(engine: sa.Engine, count: int = 12) -> list[uuid.UUID]:
    with Session(engine) as session:
        session.add(Kind(name="k", label="pay"))
        session.commit()
        accounts = [Account(email=f"a{i}", balance=100) for i in range(count)]
        for account in accounts:
            account.entries = [Entry(no=n, kind="k", amount=n) for n in (1, 2, 3)]
        session.add_all(accounts)
        session.commit()
        return [a.id for a in accounts]


def straight(sent: list[Any]) -> None:
    assert sent
    assert all(s.route.straight and s.route.single for s in sent), "\n".join(map(str, sent))


def test_what_names_a_key_goes_straight(engine: sa.Engine) -> None:
    keys = fill(engine)
    with record_routes(engine) as sent, Session(engine) as session:
        for key in keys:
            account = session.get_one(Account, key)
            assert [e.no for e in account.entries] == [1, 2, 3]
        joined = (
            sa.select(Entry.amount, Kind.label)
            .join(Account, Entry.account_id == Account.id)
            .join(Kind, Kind.name == Entry.kind)
            .where(Account.id == keys[0])
            .order_by(Entry.no)
        )
        assert session.execute(joined).all() == [(1, "pay"), (2, "pay"), (3, "pay")]
        locked = sa.select(Account).where(Account.id == keys[1]).with_for_update(skip_locked=True)
        assert session.scalars(locked).one().balance == 100
        assert (
            session.scalar(sa.select(sa.func.sum(Entry.amount)).where(Entry.account_id == keys[2]))
            == 6
        )
        session.commit()
    straight(sent)


def test_upserts(engine: sa.Engine) -> None:
    key = uuid.uuid4()
    row = insert(Account).values(id=key, email="u", balance=1)
    upsert = row.on_conflict_do_update(
        index_elements=[Account.id], set_={"balance": Account.balance + row.excluded.balance}
    ).returning(Account.balance)
    with record_routes(engine) as sent, Session(engine) as session:
        assert [session.scalar(upsert) for _ in range(3)] == [1, 2, 3]
        session.commit()
        merged = session.merge(Account(id=key, email="v", balance=9))
        session.commit()
        assert (merged.email, merged.balance) == ("v", 9)
    straight(sent)


def test_many_rows_in_one_statement(engine: sa.Engine) -> None:
    ids = [uuid.uuid4() for _ in range(20)]
    new = insert(Account).values([{"id": i, "email": f"m{n}"} for n, i in enumerate(ids)])
    upsert = new.on_conflict_do_update(index_elements=[Account.id], set_={"balance": 7})
    with record_routes(engine) as sent, Session(engine) as session:
        assert list(session.scalars(new.returning(Account.id))) == ids
        assert list(session.scalars(upsert.returning(Account.balance))) == [7] * 20
        session.commit()
        emails = set(session.scalars(sa.select(Account.email).where(Account.id.in_(ids))))
        assert emails == {f"m{n}" for n in range(20)}
        gone = session.execute(sa.delete(Account).where(Account.id.in_(ids)))
        assert gone.rowcount == 20  # type: ignore[attr-defined]
        session.commit()
    wrong = [s for s in sent if not (s.route.split and len(s.route.asked) > 1)]
    assert not wrong, "\n".join(map(str, wrong))


def test_a_transaction_over_nodes_is_atomic(engine: sa.Engine, bank: Cluster) -> None:
    keys = fill(engine)
    with record_routes(engine) as sent, Session(engine) as session:
        for key in keys:
            session.get_one(Account, key).balance -= 50
        # Several rows are one executemany, of which each node gets its own.
        session.add_all(Entry(account_id=key, no=4, kind="k", amount=-50) for key in keys)
        session.flush()
        router: Transactions = shardman_connection(session).router
        assert len(router.parts()) == 3
        with pytest.raises(sa.exc.IntegrityError), session.begin_nested():
            session.execute(sa.insert(Entry).values(account_id=keys[0], no=4, kind="k", amount=0))
        with session.begin_nested() as inner:
            session.get_one(Account, keys[0]).balance = 0
            session.flush()
            inner.rollback()
        session.commit()
        assert session.get_one(Account, keys[0]).balance == 50
    straight(sent)
    with Session(engine) as session:
        with pytest.raises(sa.exc.DataError), session.begin():  # noqa: PT012
            for key in keys:
                session.get_one(Account, key).balance = 1
            session.flush()
            session.execute(
                sa.update(Account).where(Account.id == keys[-1]).values(balance=sa.text("1 / 0"))
            )
        assert bank.value(1, "select count(*) from account where balance = 50") == len(keys)
    assert bank.value(1, "select count(*) from entry where no = 4") == len(keys)


def test_questions_to_all_partitions(engine: sa.Engine) -> None:
    keys = fill(engine)
    with Session(engine) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Account)) == len(keys)
        by_kind = sa.select(Entry.kind, sa.func.sum(Entry.amount)).group_by(Entry.kind)
        assert session.execute(by_kind).all() == [("k", 6 * len(keys))]
        top = sa.select(Account.email).order_by(Account.email.desc()).limit(2)
        assert session.scalars(top).all() == ["a9", "a8"]
        session.rollback()
        streamed = sa.select(Account).order_by(Account.email).execution_options(yield_per=5)
        assert len(list(session.scalars(streamed))) == len(keys)
        of_one = sa.select(Entry.no).where(Entry.account_id == keys[3]).order_by(Entry.no)
        assert list(session.scalars(of_one.execution_options(yield_per=1))) == [1, 2, 3]


def test_a_query_without_its_key_is_refused(bank: Cluster) -> None:
    engine = sa.create_engine(url(bank, fanout="single"))
    with Session(engine) as session:
        assert session.get(Account, uuid.uuid4()) is None
        with pytest.raises(sa.exc.NotSupportedError, match="more than one partition"):
            session.scalars(sa.select(Account)).all()
    engine.dispose()


def test_isolation_levels_and_autocommit(engine: sa.Engine) -> None:
    keys = fill(engine)
    balance = sa.select(Account.balance).where(Account.id == keys[0])
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as one:
        assert one.get_isolation_level() == "REPEATABLE READ"
        assert one.scalar(balance) == 100
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
            other.execute(sa.update(Account).where(Account.id == keys[0]).values(balance=7))
        assert one.scalar(balance) == 100
    with engine.connect() as again:
        assert again.get_isolation_level() == "READ COMMITTED"
        assert again.scalar(balance) == 7
    with (
        engine.connect().execution_options(postgresql_readonly=True) as reader,
        pytest.raises(sa.exc.InternalError, match="read-only"),
    ):
        reader.execute(sa.delete(Entry).where(Entry.account_id == keys[0]))


def test_two_phase_commit_of_your_own_is_on_one_node(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        two = connection.begin_twophase("ours")
        assert connection.scalar(sa.select(sa.literal(1))) == 1
        two.prepare()
        two.commit()
        assert connection.scalar(sa.select(sa.literal(2))) == 2
        connection.rollback()
        two = connection.begin_twophase()
        connection.execute(sa.insert(Kind).values(name="never", label="x"))
        # A shared table is written on all nodes, which PostgreSQL does not prepare.
        with pytest.raises(sa.exc.NotSupportedError, match="PREPARE"):
            two.prepare()
        connection.invalidate()


def test_alembic(engine: sa.Engine, bank: Cluster) -> None:
    fill(engine)

    def proposed() -> list[Any]:
        with engine.connect() as connection:
            found = compare_metadata(MigrationContext.configure(connection), Base.metadata)
            # The foreign key of a sharded table is that of its partitions: docs/operations.md.
            return [f for f in found if f[0] != "add_fk"]

    assert proposed() == []
    with engine.begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        op.add_column("account", sa.Column("note", sa.Text, server_default="n"))
        op.create_index("account_email", "account", ["email"])
    for node in (1, 2, 3):
        eventually(
            "every node has it",
            lambda node=node: bank.value(node, "select count(note) from account") == 12,
            tolerate=psycopg.Error,
        )
    assert {f[0] for f in proposed()} == {"remove_column", "remove_index"}
    with engine.begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        op.drop_index("account_email", "account")
        op.drop_column("account", "note")
    eventually("it is gone", lambda: proposed() == [], tolerate=sa.exc.DBAPIError)
    assert sorted(sa.inspect(engine).get_table_names()) == ["account", "entry", "kind"]


def test_pandas_and_polars(engine: sa.Engine) -> None:
    keys = fill(engine)
    of_one = sa.select(Entry.no, Entry.amount).where(Entry.account_id == keys[0]).order_by(Entry.no)
    with record_routes(engine) as sent:
        assert pd.read_sql_query(of_one, engine).amount.tolist() == [1, 2, 3]
        with engine.connect() as connection:
            assert pl.read_database(of_one, connection)["amount"].to_list() == [1, 2, 3]
    straight([s for s in sent if "entry" in s.statement])
    assert pd.read_sql("select count(*) as n from entry", engine).n[0] == 36
    more = pd.DataFrame({"id": [uuid.uuid4() for _ in range(20)], "email": "p"})
    with engine.begin() as connection:
        more.to_sql("account", connection, if_exists="append", index=False, dtype={"id": sa.Uuid()})
        assert pd.read_sql("select 1 as one", connection).one[0] == 1
    with engine.connect() as connection:
        db = shardman_connection(connection)
        loaded = db.copy_from("kind", pl.DataFrame({"name": ["p"], "label": ["polars"]}))
        assert loaded.rows == 1
        db.commit()


def test_a_node_that_goes_away(engine: sa.Engine, bank: Cluster) -> None:
    keys = fill(engine)
    with engine.connect() as connection:
        connection.execute(sa.select(1))
    bank.stop_node(2)
    try:
        # The pool's connection was to node 2: it is looked at before use, and the next host is taken.
        with engine.connect() as connection:
            assert connection.scalar(sa.select(1)) == 1
            found = shardman_connection(connection).info.port
            assert str(found) not in bank.dsn(2)
    finally:
        bank.start_node(2)
    with Session(engine) as session:
        eventually(
            "all is there",
            lambda: session.rollback() or session.get(Account, keys[0]),
            tolerate=sa.exc.DBAPIError,
        )


async def test_asyncio(bank: Cluster, engine: sa.Engine) -> None:
    keys = fill(engine)
    async_engine = create_async_engine(url(bank), pool_pre_ping=True)
    with record_routes(async_engine) as sent:
        async with AsyncSession(async_engine) as session:
            for key in keys:
                (await session.get_one(Account, key)).balance += 1
            async with session.begin_nested() as inner:
                (await session.get_one(Account, keys[0])).balance = 0
                await session.flush()
                await inner.rollback()
            await session.commit()
            of_one = sa.select(Entry.no).where(Entry.account_id == keys[3]).order_by(Entry.no)
            rows = await session.stream_scalars(of_one.execution_options(yield_per=1))
            assert [n async for n in rows] == [1, 2, 3]
    straight(sent)
    async with async_engine.connect() as connection:
        total = await connection.scalar(sa.select(sa.func.sum(Account.balance)))
        assert total == 101 * len(keys)
        await connection.rollback()
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        assert await connection.scalar(sa.select(1)) == 1
    await async_engine.dispose()
