"""What is proposed for whole applications, as data: Chinook, pgbench, TPC-H, tenants, one like Django's."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardman.model.application import (
    Application,
    Column,
    ForeignKey,
    Key,
    Table,
    plain_name,
    split_wish,
)
from shardman.model.distribution import (
    AddKey,
    Choice,
    Distribution,
    DropKey,
    Obstacle,
    Shard,
    Share,
    actions,
    obstacles,
)
from shardman.model.proposal import MEGABYTE, Wishes, default_partitions, propose


def application(text: str) -> Application:
    """Tables, one a line: `name MB: column column>table.column …; key; key`. The first key is the primary one;
    without any the table has none. `a,b>t.x,y` is a foreign key of two columns, `!` cascades updates."""
    tables, keys = {}, []
    for line in filter(None, map(str.strip, text.splitlines())):
        head, columns, *unique = re.split(r"[:;]\s*", line)
        name, size = head.split()
        names: dict[str, str] = {}
        for word in columns.split():
            own, _, target = word.rstrip("!").partition(">")
            mine = tuple(own.split(","))
            names.update(dict.fromkeys((c.partition("/")[0] for c in mine), "int"))
            names.update({c.partition("/")[0]: c.partition("/")[2] for c in mine if "/" in c})
            if target:
                table, _, theirs = target.partition(".")
                written = mine if word.endswith("!") else ()
                keys.append(
                    ForeignKey(
                        f"{name}_{mine[0]}_fkey",
                        name,
                        mine,
                        table,
                        tuple(theirs.split(",")),
                        writes=written,
                    )
                )
        tables[name] = Table(
            name,
            int(float(size) * MEGABYTE),
            columns=tuple(Column(n, t) for n, t in names.items()),
            keys=tuple(
                Key(f"{name}_{'pkey' if not n else 'key'}", tuple(u.split()), primary=not n)
                for n, u in enumerate(unique)
            ),
        )
    return Application(tables, tuple(keys), workers=3)


CHINOOK = """
    artist 0: artist_id name; artist_id
    album 0: album_id title artist_id>artist.artist_id; album_id
    employee 0: employee_id reports_to>employee.employee_id; employee_id
    customer 0: customer_id support_rep_id>employee.employee_id; customer_id
    genre 0: genre_id; genre_id
    media_type 0: media_type_id; media_type_id
    playlist 0: playlist_id; playlist_id
    track 0: track_id album_id>album.album_id genre_id>genre.genre_id type>media_type.media_type_id; track_id
    playlist_track 0: playlist_id>playlist.playlist_id track_id>track.track_id; playlist_id track_id
    invoice 0: invoice_id customer_id>customer.customer_id; invoice_id
    invoice_line 0: invoice_line_id invoice_id>invoice.invoice_id track_id>track.track_id; invoice_line_id
"""
PGBENCH = """
    pgbench_branches 1: bid; bid
    pgbench_tellers 1: tid bid>pgbench_branches.bid; tid
    pgbench_accounts 1500: aid bid>pgbench_branches.bid; aid
    pgbench_history 0: tid>pgbench_tellers.tid bid>pgbench_branches.bid aid>pgbench_accounts.aid
"""
TENANTS = """
    plan 1: id; id
    tenant 5: id plan_id>plan.id; id
    project 200: tenant_id>tenant.id id; tenant_id id
    task 900: tenant_id,project_id>project.tenant_id,id tenant_id>tenant.id id; tenant_id id
    note 300: tenant_id,task_id>task.tenant_id,id id; tenant_id id
"""
ORDERS = """
    customer 1: id; id
    orders 300: id customer_id>customer.id; id
    item 900: id order_id>orders.id product_id>product.id; id
    product 2: id; id
"""
TPCH = """
    region 0: r_regionkey; r_regionkey
    nation 0: n_nationkey n_regionkey>region.r_regionkey; n_nationkey
    supplier 2: s_suppkey s_nationkey>nation.n_nationkey; s_suppkey
    customer 30: c_custkey c_nationkey>nation.n_nationkey; c_custkey
    part 30: p_partkey; p_partkey
    partsupp 120: ps_partkey>part.p_partkey ps_suppkey>supplier.s_suppkey; ps_partkey ps_suppkey
    orders 200: o_orderkey o_custkey>customer.c_custkey; o_orderkey
    lineitem 900: l_orderkey>orders.o_orderkey l_n l_part,l_supp>partsupp.ps_partkey,ps_suppkey; l_orderkey l_n
"""
DJANGO = """
    django_migrations 0: id; id
    auth_user 3: id username; id; username
    auth_group 0: id; id
    auth_user_groups 0: id user_id>auth_user.id group_id>auth_group.id; id; user_id group_id
    shop_event 4000: id user_id>auth_user.id; id
    shop_log 2000: id user_id>auth_user.id; id
"""


def as_words(wanted: Distribution) -> dict[str, str]:
    """`column` or `column@root` of sharded tables, else what they become."""
    return {
        n: c.how
        if c.how != "sharded"
        else f"{c.by}@{c.colocate_with}"
        if c.colocate_with
        else str(c.by)
        for n, c in wanted.choices.items()
    }


def sharded(text: str, **wishes: object) -> dict[str, str]:
    """Those that are to be sharded; there are no others than shared ones besides."""
    words = as_words(propose(application(text), 1, Wishes(**wishes)))  # type: ignore[arg-type]
    assert set(words) == set(application(text).tables)
    return {n: w for n, w in words.items() if w != "shared"}


def found(text: str, wanted: Distribution) -> list[Obstacle]:
    return obstacles(application(text), wanted)


@pytest.mark.parametrize("text", [CHINOOK, DJANGO.replace("4000", "1").replace("2000", "1")])
def test_a_small_application_is_shared(text: str) -> None:
    assert sharded(text) == {}
    wanted = propose(application(text), 1, Wishes())
    assert found(text, wanted) == []
    assert len(actions(application(text), wanted)) == len(wanted.choices)


def test_accounts_and_history_of_pgbench_lie_together() -> None:
    assert sharded(PGBENCH) == {
        "pgbench_accounts": "aid",
        "pgbench_history": "aid@pgbench_accounts",
    }
    wanted = propose(application(PGBENCH), 1, Wishes())
    assert found(PGBENCH, wanted) == []
    words = [
        type(a).__name__ + " " + getattr(a, "table", "")
        for a in actions(application(PGBENCH), wanted)
    ]
    assert words == [
        "Share pgbench_branches",
        "Share pgbench_tellers",
        "DropKey ",
        "Shard pgbench_accounts",
        "Shard pgbench_history",
        "AddKey ",
    ]


def test_without_foreign_keys_a_name_is_enough() -> None:
    without = re.sub(r">\S+", "", PGBENCH)
    assert sharded(without)["pgbench_history"] == "aid@pgbench_accounts"


def test_a_tenants_tables_lie_together() -> None:
    assert sharded(TENANTS) == {
        "project": "tenant_id",
        "task": "tenant_id@project",
        "note": "tenant_id@project",
    }
    assert found(TENANTS, propose(application(TENANTS), 1, Wishes())) == []


def test_a_key_that_lacks_the_column_is_told_with_what_adds_it() -> None:
    assert sharded(ORDERS) == {"orders": "id", "item": "order_id@orders"}
    (only,) = found(ORDERS, propose(application(ORDERS), 1, Wishes()))
    assert only.table == "item" and "item_pkey does not contain order_id" in only.what
    assert only.sql == (
        "ALTER TABLE item DROP CONSTRAINT item_pkey, ADD CONSTRAINT item_pkey PRIMARY KEY (order_id, id)"
    )


def test_no_key_is_changed_where_a_table_can_be_sharded_without() -> None:
    assert sharded(DJANGO) == {"shop_event": "id", "shop_log": "id"}
    assert found(DJANGO, propose(application(DJANGO), 1, Wishes())) == []


@pytest.mark.parametrize("below", [1, 50, 100])
def test_orders_and_their_items_of_tpch(below: int) -> None:
    assert sharded(TPCH, shared_below=below * MEGABYTE) == {
        "orders": "o_orderkey",
        "lineitem": "l_orderkey@orders",
    }


def test_what_is_wished_is_sharded_with_what_has_to_follow() -> None:
    assert sharded(CHINOOK, shard={"invoice": "invoice_id"}) == {
        "invoice": "invoice_id",
        "invoice_line": "invoice_id@invoice",
    }
    # Not even with what refers to it: there is no foreign key that has the column.
    wanted = propose(application(CHINOOK), 1, Wishes(shard={"invoice": "customer_id"}))
    said = found(CHINOOK, wanted)
    assert [o.table for o in said] == ["invoice", "invoice_line"]
    assert "invoice_pkey does not contain customer_id" in said[0].what
    assert said[1].ways[0] == (
        "Let it follow: give invoice_line a column customer_id, and make the key (…, customer_id)"
        " to a unique key of invoice with that"
    )


def test_a_wish_for_what_is_something_else_already_is_in_the_way() -> None:
    app = application(PGBENCH)
    done = {n: _with(t, state="shared") for n, t in app.tables.items()}
    wanted = propose(_with(app, tables=done), 1, Wishes(shard={"pgbench_accounts": "aid"}))
    told = [o.what for o in obstacles(_with(app, tables=done), wanted)]
    assert "it is shared already, and the plan wants it sharded" in told
    other = _with(app.tables["pgbench_history"], state="sharded", by="bid", partitions=4)
    app = _with(app, tables={**app.tables, other.name: other})
    wanted = propose(app, 1, Wishes(shard={other.name: "aid"}))
    told = [o.what for o in obstacles(app, wanted) if o.table == other.name]
    assert "it is sharded by bid already, and the plan wants aid" in told


def test_partitions() -> None:
    assert (
        default_partitions(3) == 12
        and default_partitions(4) == 24
        and default_partitions(40) == 192
    )
    assert (
        propose(application(PGBENCH), 1, Wishes(partitions=5)).of("pgbench_accounts").partitions
        == 5
    )


def test_actions_of_foreign_keys_may_not_change_the_column() -> None:
    text = "big 500: a>small.a! b; a b\nsmall 1: a; a"
    assert sharded(text) == {"big": "b"}
    wanted = propose(application(text), 1, Wishes(shard={"big": "a"}))
    assert "would change a" in found(text, wanted)[0].what


def test_all_that_is_wrong_with_a_plan_is_told() -> None:
    app = application(ORDERS)
    wanted = Distribution(
        1,
        {
            "customer": Choice("sharded", "id", 4),
            "orders": Choice("shared"),
            "item": Choice("sharded", "nothing", None, "product"),
            "product": Choice("plain"),
        },
    )
    told = {(o.table, o.what.split(":")[0][:48]) for o in obstacles(app, wanted)}
    assert told == {
        ("item", "it is to be colocated with product, which is not"),
        ("item", "it has no column nothing"),
        ("item", "the foreign key item_product_id_fkey to product,"),
        ("orders", "the foreign key orders_customer_id_fkey to custo"),
    }


CIRCLES = (
    "a 0: id b_id>b.id; id\nb 0: id a_id>a.id; id\nc 0: id a_id>a.id; id\nd 0: id d_id>d.id; id"
)


def test_circles_of_shared_tables() -> None:
    """One key of each is away while they are shared."""
    app = application(CIRCLES)
    wanted = propose(app, 1, Wishes())
    assert obstacles(app, wanted) == []
    assert [
        getattr(a, "table", None) or (type(a).__name__, a.key.name) for a in actions(app, wanted)
    ] == [("DropKey", "a_b_id_fkey"), "d", "a", "b", "c", ("AddKey", "a_b_id_fkey")]


def after(app: Application, wanted: Distribution, done: int) -> Application:
    """An application when so many actions were done."""
    tables, keys = dict(app.tables), list(app.foreign_keys)
    for action in actions(app, wanted)[:done]:
        if isinstance(action, Share):
            tables[action.table] = _with(tables[action.table], state="shared")
        elif isinstance(action, Shard):
            tables[action.table] = _with(
                tables[action.table],
                state="sharded",
                by=action.by,
                partitions=action.partitions,
                group=action.colocate_with or action.table,
            )
        elif isinstance(action, DropKey):
            keys[keys.index(action.key)] = _with(action.key, dropped=True)
        elif isinstance(action, AddKey):
            keys = [k for k in keys if k.name != action.key.name]
    # Foreign keys of sharded tables are the metadata's.
    kept = [k for k in keys if k.dropped or tables[k.table].state != "sharded"]
    return Application(tables, tuple(kept), app.workers)


def _with(thing, **changes):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    return replace(thing, **changes)


@pytest.mark.parametrize("text", [PGBENCH, TENANTS, CHINOOK, TPCH, DJANGO, CIRCLES])
def test_it_goes_on_wherever_it_was_stopped(text: str) -> None:
    app = application(text)
    wanted = propose(app, 1, Wishes())
    todo = actions(app, wanted)
    for done in range(len(todo) + 1):
        later = after(app, wanted, done)
        assert obstacles(later, wanted) == []
        assert [type(a) for a in actions(later, wanted)] == [type(a) for a in todo[done:]]
        # Proposed anew, without the plan, it comes to the same.
        again = propose(later, 1, Wishes())
        assert as_words(again) == as_words(wanted), done


def test_a_key_that_was_dropped_comes_back_where_its_tables_stay_plain() -> None:
    app = application(PGBENCH)
    wanted = propose(app, 1, Wishes())
    later = after(app, wanted, 3)
    plain = Distribution(
        1, {n: Choice("plain") if n[8] in "ah" else c for n, c in wanted.choices.items()}
    )
    (only,) = actions(later, plain)
    assert (
        isinstance(only, AddKey) and not only.inside and only.key.name == "pgbench_history_aid_fkey"
    )


names = st.sampled_from("abcdef")


@given(
    st.dictionaries(names, st.integers(0, 300), min_size=1),
    st.lists(st.tuples(names, names)),
)
def test_what_is_proposed_can_be_done_but_for_keys(
    sizes: dict[str, int], links: list[tuple[str, str]]
) -> None:
    lines = []
    for n, size in sizes.items():
        refers = " ".join(
            f"{t}_id>{t}.id" for f, t in dict.fromkeys(links) if f == n and t in sizes
        )
        lines.append(f"{n} {size}: id {refers}; id")
    app = application("\n".join(lines))
    wanted = propose(app, 1, Wishes())
    assert set(wanted.choices) == set(sizes)
    for each in obstacles(app, wanted):
        assert "unique key" in each.what
    order = [a.table for a in actions(app, wanted) if isinstance(a, Share)]
    assert sorted(order) == sorted(n for n in app.tables if wanted.of(n).how == "shared")


def test_a_column_is_found_however_it_is_written() -> None:
    names = ("id", "Id", 'a"b', "größe")
    table = Table(
        "t", columns=(Column("id", "int"), Column('"Id"', "int"), Column('"a""b"', "int"))
    )
    assert table.columns_of('"id", ID, "Id"') == ("id", "id", '"Id"')
    assert table.columns_of('"a""b"') == ('"a""b"',)
    assert table.columns_of("lower(id)") is None
    assert table.columns_of("other") == ("other",)
    assert [plain_name(w) for w in ("ID", '"Id"', '"a""b"', "GRöße")] == list(names)


@pytest.mark.parametrize(
    ("word", "wish"),
    [
        ("t=id", ("t", "id")),
        (' "Posts" = "id" ', ('"Posts"', '"id"')),
        ('"a=b"."c""=d"="x=y"', ('"a=b"."c""=d"', '"x=y"')),
        ("t", None),
        ("=id", None),
        ("t= ", None),
    ],
)
def test_a_wish_is_split_at_the_sign_that_no_quotes_hold(
    word: str, wish: tuple[str, str] | None
) -> None:
    assert split_wish(word) == wish
