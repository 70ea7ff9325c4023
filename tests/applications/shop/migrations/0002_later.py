from typing import ClassVar

from django.db import migrations

from applications.shop.later import OPERATIONS


class Migration(migrations.Migration):
    dependencies: ClassVar = [("shop", "0001_initial")]
    operations: ClassVar = OPERATIONS
