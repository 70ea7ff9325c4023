from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: ClassVar = [("bank", "0001_initial")]

    operations: ClassVar = [
        migrations.AddField("Account", "note", models.TextField(default="n")),
        migrations.AddField("Entry", "note", models.TextField(default="n")),
    ]
