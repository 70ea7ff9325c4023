"""What the migrations of the next release do, forward and backward."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

OPERATIONS = [
    # Of shared tables.
    migrations.AddField("Product", "stock", models.IntegerField(default=3)),
    migrations.AddField(
        "Product",
        "second",
        models.ForeignKey(
            "shop.Category",
            null=True,
            related_name="+",
            on_delete=django.db.models.deletion.SET_NULL,
        ),
    ),
    migrations.AlterField("Product", "name", models.CharField(max_length=80, db_index=True)),
    migrations.RenameField("Category", "name", "title"),
    migrations.AddIndex("Product", models.Index(fields=["price"], name="by_price")),
    migrations.AddConstraint(
        "Product",
        models.CheckConstraint(condition=models.Q(price__gte=0), name="not_negative"),
    ),
    migrations.RunSQL(
        "update shop_product set stock = stock + 1", "update shop_product set stock = stock - 1"
    ),
    # Of the sharded one.
    migrations.AddField(
        "Visit", "referrer", models.CharField(max_length=100, default="", blank=True)
    ),
    migrations.RenameField("Visit", "seconds", "duration"),
    migrations.AlterField("Visit", "duration", models.IntegerField(default=1)),
    migrations.AddIndex("Visit", models.Index(fields=["at"], name="visit_at")),
    migrations.RunSQL(
        "update shop_visit set referrer = 'r' where duration > 0", migrations.RunSQL.noop
    ),
]
