from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """A new model, and what refers to it from a shared and a sharded one: as makemigrations writes it."""

    dependencies: ClassVar = [("shop", "0005_branded")]
    operations: ClassVar = [
        migrations.CreateModel(
            "Maker",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=20, unique=True)),
                ("shelf", models.ForeignKey("shop.Shelf", models.SET_NULL, null=True)),
            ],
        ),
        migrations.AddField(
            "product", "maker", models.ForeignKey("shop.Maker", models.SET_NULL, null=True)
        ),
        migrations.AddField(
            "look", "maker", models.ForeignKey("shop.Maker", models.SET_NULL, null=True)
        ),
    ]
