from __future__ import annotations

import uuid
from typing import ClassVar

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    operations: ClassVar = [
        migrations.CreateModel(
            "Kind",
            [
                ("name", models.CharField(max_length=20, primary_key=True, serialize=False)),
                ("label", models.CharField(max_length=40)),
            ],
        ),
        migrations.CreateModel(
            "Account",
            [
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ("email", models.CharField(max_length=120)),
                ("balance", models.IntegerField(default=0)),
                ("made", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            "Entry",
            [
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "account_id",
                        "no",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("no", models.IntegerField()),
                ("amount", models.IntegerField()),
                (
                    "account",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="entries",
                        to="bank.account",
                    ),
                ),
                (
                    "kind",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="bank.kind",
                    ),
                ),
            ],
        ),
    ]
