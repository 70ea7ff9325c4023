"""The application's own tests, which `manage.py test` runs."""

from __future__ import annotations

from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase

from orm.bank import use
from orm.bank.models import Account
from shardman.django import record_routes


class OnTheCluster(TestCase):
    """All within a transaction and its savepoints, which are rolled back."""

    def test_key_statements_go_straight(self) -> None:
        with record_routes() as sent:
            accounts = [Account.objects.create(email=f"t{i}") for i in range(60)]
            with transaction.atomic():
                Account.objects.filter(pk=accounts[0].pk).update(balance=1)
        use.straight(sent)
        assert len(connection.connection.router.parts()) == 3

    def test_nothing_of_it_stays(self) -> None:
        assert not Account.objects.filter(email="t0").exists()


class Plain(TransactionTestCase):
    """Without a transaction around it: all tables are emptied afterwards."""

    def test_a_row(self) -> None:
        account = Account.objects.create(email="t")
        assert Account.objects.get(pk=account.pk).note == "n"
