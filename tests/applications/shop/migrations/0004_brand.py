from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """A table by itself: what there is already refers to it in the next."""

    dependencies: ClassVar = [("shop", "0003_more")]
    operations: ClassVar = [
        migrations.CreateModel(
            "Brand",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=20)),
            ],
        ),
    ]
