"""The application."""

from __future__ import annotations

from django.apps import AppConfig


class Bank(AppConfig):
    name = "orm.bank"
    label = "bank"
    default_auto_field = "django.db.models.BigAutoField"
