"""What the application does, in a process of its own."""

from __future__ import annotations

import uuid
from typing import Any

from django.core.management.color import no_style
from django.db import DataError, IntegrityError, connection, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Count, F, Sum

from orm.bank.models import Account, Entry, Kind
from shardman.django import record_routes


def straight(sent: list[Any]) -> None:
    assert sent
    wrong = [s for s in sent if not (s.route.straight or "SAVEPOINT" in s.statement)]
    assert not wrong, "\n".join(map(str, wrong))


def fill() -> list[uuid.UUID]:
    Kind.objects.update_or_create(name="k", defaults={"label": "pay"})
    keys = []
    for i in range(12):
        with transaction.atomic():
            account = Account.objects.create(email=f"a{i}", balance=100)
            Entry.objects.bulk_create(
                Entry(account=account, no=n, kind_id="k", amount=n) for n in (1, 2, 3)
            )
        keys.append(account.pk)
    return keys


def everything() -> None:
    keys = fill()
    reads(keys)
    upserts(keys)
    many()
    transactions(keys)
    questions(keys)


def reads(keys: list[uuid.UUID]) -> None:
    with record_routes() as sent:
        for key in keys:
            account = Account.objects.get(pk=key)
            assert str(account.made.tzinfo) == "UTC"
            assert [e.no for e in account.entries.order_by("no")] == [1, 2, 3]
        joined = Entry.objects.filter(account_id=keys[0]).select_related("account", "kind")
        assert {(e.account.email, e.kind.label) for e in joined} == {("a0", "pay")}
        assert Entry.objects.filter(account=keys[1]).aggregate(s=Sum("amount"))["s"] == 6
        with transaction.atomic():
            locked = Account.objects.select_for_update(skip_locked=True).get(pk=keys[2])
            assert locked.balance == 100
    straight(sent)


def upserts(keys: list[uuid.UUID]) -> None:
    key = uuid.uuid4()
    with record_routes() as sent:
        for balance in (1, 2):
            Account.objects.bulk_create(
                [Account(id=key, email="u", balance=balance)],
                update_conflicts=True,
                unique_fields=["id"],
                update_fields=["balance"],
            )
        assert Account.objects.get(pk=key).balance == 2
        _, made = Account.objects.update_or_create(pk=key, defaults={"balance": 3})
        assert not made
        _, made = Account.objects.get_or_create(pk=uuid.uuid4(), defaults={"email": "g"})
        assert made
    straight(sent)


def many() -> None:
    """Rows of several partitions in one statement."""
    new = [Account(id=uuid.uuid4(), email=f"m{i}", balance=i) for i in range(20)]
    ids = [a.pk for a in new]
    with record_routes() as sent:
        Account.objects.bulk_create(new)
        assert {a.email for a in Account.objects.filter(pk__in=ids)} == {a.email for a in new}
        assert Account.objects.filter(pk__in=ids).update(balance=F("balance") + 1) == 20
        found = Account.objects.in_bulk(ids)
        assert [found[i].balance for i in ids] == list(range(1, 21))
        for account in new:
            account.balance = -1
        Account.objects.bulk_create(
            new, update_conflicts=True, unique_fields=["id"], update_fields=["balance"]
        )
        for account in new:
            account.note = account.email
        assert Account.objects.bulk_update(new, ["note"]) == 20
        gone = Account.objects.filter(pk__in=ids, balance=-1, note=F("email"))
        assert gone._raw_delete(gone.db) == 20
    wrong = [s for s in sent if not (s.route.split and len(s.route.asked) > 1)]
    assert not wrong, "\n".join(map(str, wrong))


def transactions(keys: list[uuid.UUID]) -> None:
    with record_routes() as sent:
        with transaction.atomic():
            for key in keys:
                Account.objects.filter(pk=key).update(balance=F("balance") - 10)
            try:
                with transaction.atomic():
                    Entry.objects.create(account_id=keys[0], no=1, kind_id="k", amount=0)
            except IntegrityError:
                pass
            else:
                raise SystemExit("a second entry of one number was accepted")
            # The keys are random: one node may have none of them.
            assert len(connection.connection.router.parts()) > 1
        try:
            with transaction.atomic():
                for key in keys:
                    Account.objects.filter(pk=key).update(balance=0)
                Account.objects.filter(pk=keys[0]).update(balance=F("balance") / 0)
        except DataError:
            pass
    straight(sent)
    assert Account.objects.filter(balance=90).count() == len(keys)


def questions(keys: list[uuid.UUID]) -> None:
    by_kind = Entry.objects.values("kind__label").annotate(n=Count("no"))
    assert list(by_kind) == [{"kind__label": "pay", "n": 3 * len(keys)}]
    assert len(list(Entry.objects.iterator(chunk_size=5))) == 3 * len(keys)
    with transaction.atomic():
        assert len(list(Account.objects.filter(pk__in=keys).iterator(chunk_size=5))) == len(keys)
    with connection.cursor() as cursor:
        cursor.callproc("abs", [-3])
        assert cursor.fetchone() == (3,)
    assert connection.connection.router.pinned == ""


def sequences() -> None:
    """What `loaddata` and `flush` do with sequences, where some rows have numbers of other nodes."""
    model, ops = MigrationRecorder.Migration, connection.ops
    behind = ops.sequence_reset_sql(no_style(), [model])
    begin = ops.sequence_reset_by_name_sql(
        no_style(), [{"table": model._meta.db_table, "column": None}]
    )
    made, first = [], []
    with connection.cursor() as cursor:
        for _ in range(2):
            for statement in begin:
                cursor.execute(statement)
                first.append(cursor.fetchone()[0])
            for statement in behind:
                cursor.execute(statement)
            made.append(model.objects.create(app="none", name="none").pk)
    assert made[1] == made[0] + 1, made
    assert first[0] == first[1] <= made[0], (first, made)
