"""Accounts with their entries, sharded by the account; kinds are shared."""

from __future__ import annotations

import uuid

from django.db import models


class Kind(models.Model):
    name = models.CharField(max_length=20, primary_key=True)
    label = models.CharField(max_length=40)


class Account(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.CharField(max_length=120)
    balance = models.IntegerField(default=0)
    made = models.DateTimeField(auto_now_add=True)
    note = models.TextField(default="n")


class Entry(models.Model):
    pk = models.CompositePrimaryKey("account_id", "no")
    account = models.ForeignKey(
        Account, on_delete=models.DO_NOTHING, db_constraint=False, related_name="entries"
    )
    no = models.IntegerField()
    kind = models.ForeignKey(Kind, on_delete=models.PROTECT, db_constraint=False)
    amount = models.IntegerField()
    note = models.TextField(default="n")
