"""A Django project moves in: its tables are shared but for one, which is sharded. Every node is used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

TESTS = Path(__file__).parents[1]
SETTINGS = """
import os
SECRET_KEY = "x"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
                  "django.contrib.admin", "django.contrib.messages", "applications.shop.app.Shop"]
SILENCED_SYSTEM_CHECKS = ["admin.E403", "admin.E408", "admin.E409", "admin.E410"]  # no pages are asked for
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"],
                         "OPTIONS": {"options": "-c search_path=shop"}}}
"""
#: Runs in a process of its own, on the node that the environment names.
USE = """
import django; django.setup()
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.db import transaction, IntegrityError
from django.db.models import Avg, Count
from applications.shop.models import Category, Product, Visit
import sys
node = sys.argv[1]
user = User.objects.create_user(f"user{node}", password="p")
top, _ = Category.objects.get_or_create(name="top")
child = Category.objects.create(name=f"c{node}", parent=top)
product = Product.objects.create(name=f"p{node}", category=child, price="1.50")
with transaction.atomic():
    Visit.objects.bulk_create(Visit(user=user, product=product, seconds=i) for i in range(40))
visit = Visit.objects.create(user=user, product=product)
assert Visit.objects.get(pk=visit.pk).product.category.parent == top
assert Visit.objects.filter(product=product).aggregate(n=Count("id"), s=Avg("seconds"))["n"] == 41
assert list(Visit.objects.values("product__category__parent__name").annotate(n=Count("id")))[0]["n"] >= 41
Visit.objects.filter(product=product, seconds__lt=10).update(seconds=100)
try:
    with transaction.atomic():
        Visit.objects.create(user=user, product_id=10**9)
except IntegrityError:
    pass
else:
    raise SystemExit("a visit of no product was accepted")
session = SessionStore(); session["a"] = 1; session.save()
assert SessionStore(session_key=session.session_key)["a"] == 1
gone = Product.objects.create(name="gone", category=child, price=2)
Visit.objects.create(product=gone)
gone.delete()
assert not Visit.objects.filter(product__name="gone").exists()
"""


@pytest.fixture(scope="module")
def shop(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The application's tables on worker 1, made by its own migrations as its own role, and taken in."""
    where = tmp_path_factory.mktemp("site")
    (where / "site_settings.py").write_text(SETTINGS)
    for node in (0, 1, 2, 3):
        cluster.sql(node, "create role shop login password 's'")
    cluster.sql(1, "create schema shop authorization shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{where}{os.pathsep}{TESTS}")
        patch.setenv("DJANGO_SETTINGS_MODULE", "site_settings")
        manage(cluster, 1, "migrate", "auth")
        manage(cluster, 1, "migrate", "sessions")
        manage(cluster, 1, "migrate", "admin")
        manage(cluster, 1, "migrate", "shop", "0001")
        manage(
            cluster,
            1,
            "createsuperuser",
            "--noinput",
            "--username",
            "root",
            "--email",
            "a@b.example",
        )
        cluster.sql(0, "insert into shardman.settings values ('new_tables', 'shared')")
        run(
            *("shardman", "distribute", "--dsn", cluster.dsn(1), "--shard", "shop.shop_visit=id"),
            *("--partitions", "4", "--apply", "--yes"),
        )
        done = cluster.cmd("select shardman.set_replevel('shop.shop_visit', 1)")
        assert done.status in ("success", "done"), done
        eventually(
            "the roads are there",
            lambda: all(counts(cluster, n) for n in (1, 2, 3)),
            tolerate=psycopg.Error,
        )
        yield cluster


def run(*command: str, node_dsn: str | None = None) -> str:
    env = {**os.environ}
    if node_dsn:
        where = conninfo_to_dict(node_dsn)
        env |= {
            "PGHOST": str(where["host"]),
            "PGPORT": str(where["port"]),
            "PGDATABASE": str(where["dbname"]),
            "PGUSER": "shop",
            "PGPASSWORD": "s",
        }
    program = str(Path(sys.executable).parent / command[0])
    done = subprocess.run(
        (program, *command[1:]), env=env, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def manage(cluster: Cluster, node: int, *command: str) -> str:
    return run("python", "-m", "django", *command, node_dsn=cluster.dsn(node))


def use(cluster: Cluster, node: int) -> None:
    run("python", "-c", USE, str(node), node_dsn=cluster.dsn(node))


def counts(cluster: Cluster, node: int) -> bool:
    query = b"select count(*) from shop.shop_visit, shop.auth_user"
    with psycopg.connect(make_conninfo(cluster.dsn(node), user="shop", password="s")) as conn:
        return conn.execute(query).fetchone() is not None


def test_it_is_used_through_every_node(shop: Cluster) -> None:
    for node in (1, 2, 3):
        use(shop, node)
    assert {shop.value(n, "select count(*) from shop.shop_visit") for n in (1, 2, 3)} == {123}
    assert check(shop.lord_dsn, data=True) == []


def test_it_is_migrated_forward_and_backward(shop: Cluster) -> None:
    columns = (
        "select string_agg(concat_ws(' ', table_name, column_name, data_type), ','"
        " order by table_name, column_name)"
        " from information_schema.columns where table_schema = 'shop' and table_name !~ '_[0-9]+(_data|_fdw)?$'"
    )
    before = {shop.value(n, columns) for n in (1, 2, 3)}
    assert len(before) == 1
    manage(shop, 2, "migrate", "shop", "0002")
    assert len({shop.value(n, columns) for n in (1, 2, 3)} | before) == 2
    assert {shop.value(n, "select max(stock) from shop.shop_product") for n in (1, 2, 3)} == {4}
    assert {shop.value(n, "select max(referrer) from shop.shop_visit") for n in (1, 2, 3)} == {"r"}
    manage(shop, 3, "migrate", "shop", "0001")
    assert {shop.value(n, columns) for n in (1, 2, 3)} == before
    eventually("the lord knows", lambda: not shop.commands_left())
    assert check(shop.lord_dsn, data=True) == []


def test_new_tables_are_on_every_node(shop: Cluster) -> None:
    visits = shop.value(1, "select count(*) from shop.shop_visit")
    # In one go: they refer to what the one before, or the same, has made.
    manage(shop, 3, "migrate", "shop", "0006")
    eventually("it is shared", lambda: not shop.commands_left())
    referring = (
        "select least(count(*) filter (where confrelid = 'shop.shop_brand'::regclass),"
        " count(*) filter (where confrelid = 'shop.shop_maker'::regclass)) from pg_constraint"
        " where contype = 'f' and conrelid::regclass::text ~ 'shop_product$|shop_look_[0-9]+_data'"
    )
    for node in (1, 2, 3):
        assert shop.value(node, "select count(*) from shop.shop_label") == 0
        assert shop.value(node, referring) > 1
        assert shop.value(node, "select count(*) from shop.shop_look") == visits
        assert shop.value(node, "select count(*) > 0 from shop.shop_shelf")
    manage(shop, 1, "migrate", "shop", "0001")
    eventually("the lord knows", lambda: not shop.commands_left())
    for node in (1, 2, 3):
        assert shop.value(node, "select to_regclass('shop.shop_brand')") is None
        assert shop.value(node, "select to_regclass('shop.shop_maker')") is None
        assert shop.value(node, "select to_regclass('shop.shop_label')") is None
        assert shop.value(node, "select count(*) from shop.shop_visit") == visits
    assert check(shop.lord_dsn, data=True) == []


def test_a_table_is_shared_when_it_gets_its_key(shop: Cluster) -> None:
    """As dumps give it, behind the rows; not such as are sharded, or have one already."""
    with psycopg.connect(shop.dsn(2), autocommit=True) as conn:
        told: list[str] = []
        conn.add_notice_handler(lambda said: told.append(said.message_primary or ""))
        conn.execute("create table shop.late (id int, t text)")
        assert told == ["shop.late has no primary key, and stays on this node until it has one"]
        conn.execute("insert into shop.late values (1, 'a')")
        assert not shop.commands_left()
        conn.execute("alter table only shop.late\n    add constraint late_pkey PRIMARY KEY (id)")
    eventually("it is shared", lambda: not shop.commands_left())
    assert [shop.sql(n, "select * from shop.late") for n in (1, 2, 3)] == [[(1, "a")]] * 3
    shop.sql(3, "drop table shop.late")
    eventually("it is dropped", lambda: not shop.commands_left())
