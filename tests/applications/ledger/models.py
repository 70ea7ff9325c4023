"""The models of an application with SQLAlchemy: names by a convention, enums, checks, comments, defaults."""

from __future__ import annotations

import enum
from datetime import datetime
from decimal import Decimal

from sqlalchemy import (
    CheckConstraint,
    Computed,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    Numeric,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Standing(enum.Enum):
    good = "good"
    late = "late"


class Account(Base):
    __tablename__ = "account"
    __table_args__ = (
        UniqueConstraint("email", "region"),
        CheckConstraint("credit >= 0", name="credit"),
        {"comment": "who pays"},
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(120))
    region: Mapped[str] = mapped_column(String(2), server_default="de")
    standing: Mapped[Standing] = mapped_column(
        Enum(Standing, name="standing"), server_default="good", comment="how he pays"
    )
    credit: Mapped[Decimal] = mapped_column(Numeric(12, 2), server_default=text("0"))
    made: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    entries: Mapped[list[Entry]] = relationship(back_populates="account")


class Kind(Base):
    __tablename__ = "kind"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)


class Entry(Base):
    """The big one: it is sharded by its key."""

    __tablename__ = "entry"
    __table_args__ = (
        CheckConstraint("amount <> 0", name="amount"),
        Index("ix_entry_account_made", "account_id", text("made DESC")),
        Index("ix_entry_open", "account_id", postgresql_where=text("NOT done")),
        Index("ix_entry_note_lower", text("lower(note)")),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"), index=True)
    kind_id: Mapped[int] = mapped_column(ForeignKey("kind.id", ondelete="CASCADE"))
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    twice: Mapped[Decimal] = mapped_column(Numeric(12, 2), Computed("amount * 2", persisted=True))
    note: Mapped[str] = mapped_column(server_default="", comment="free text")
    done: Mapped[bool] = mapped_column(server_default=text("false"))
    labels: Mapped[list[str]] = mapped_column(ARRAY(String(20)), server_default=text("'{}'"))
    extra: Mapped[dict[str, int]] = mapped_column(JSONB, server_default=text("'{}'"))
    made: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    account: Mapped[Account] = relationship(back_populates="entries")
