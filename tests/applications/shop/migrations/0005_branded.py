from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """A shared table and a sharded one refer to what the migration before has made."""

    dependencies: ClassVar = [("shop", "0004_brand")]
    operations: ClassVar = [
        migrations.AddField("product", "stars", models.IntegerField(default=0)),
        migrations.AddField(
            "product", "brand", models.ForeignKey("shop.Brand", models.SET_NULL, null=True)
        ),
        migrations.AddField(
            "look", "brand", models.ForeignKey("shop.Brand", models.SET_NULL, null=True)
        ),
    ]
