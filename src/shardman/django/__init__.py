"""Django over `shardman.connect`, by its own backend for PostgreSQL.

DATABASES = {"default": {"ENGINE": "shardman.django", "HOST": "node1,node2", "PORT": "5432,5432", ...}}
"""

from __future__ import annotations

from shardman.django.routes import record_routes

__all__ = ["record_routes"]
