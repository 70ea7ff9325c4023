"""How Django is to know the application."""

from __future__ import annotations

from django.apps import AppConfig


class Shop(AppConfig):
    name = "applications.shop"
    label = "shop"
