from typing import ClassVar

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

ID = ("id", models.BigAutoField(primary_key=True, serialize=False))


class Migration(migrations.Migration):
    initial = True
    dependencies: ClassVar = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]
    operations: ClassVar = [
        migrations.CreateModel(
            "Category",
            [
                ID,
                ("name", models.CharField(max_length=40, unique=True)),
                (
                    "parent",
                    models.ForeignKey(
                        "shop.Category",
                        null=True,
                        blank=True,
                        on_delete=django.db.models.deletion.CASCADE,
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            "Product",
            [
                ID,
                ("name", models.CharField(max_length=40, db_index=True)),
                (
                    "category",
                    models.ForeignKey("shop.Category", on_delete=django.db.models.deletion.PROTECT),
                ),
                ("price", models.DecimalField(max_digits=10, decimal_places=2)),
            ],
        ),
        migrations.CreateModel(
            "Visit",
            [
                ID,
                (
                    "user",
                    models.ForeignKey(
                        settings.AUTH_USER_MODEL,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                    ),
                ),
                (
                    "product",
                    models.ForeignKey("shop.Product", on_delete=django.db.models.deletion.CASCADE),
                ),
                ("at", models.DateTimeField(auto_now_add=True)),
                ("seconds", models.IntegerField(default=0)),
            ],
        ),
    ]
