from typing import ClassVar

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """A table that the first release had not, which refers to one that it had; and two that get other names."""

    dependencies: ClassVar = [("shop", "0002_later")]
    operations: ClassVar = [
        migrations.CreateModel(
            "Label",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("text", models.CharField(max_length=20)),
                (
                    "product",
                    models.ForeignKey("shop.Product", on_delete=django.db.models.deletion.CASCADE),
                ),
            ],
        ),
        # A sharded table, and a shared one.
        migrations.RenameModel("Visit", "Look"),
        migrations.RenameModel("Category", "Shelf"),
    ]
