"""The SQL function of each verb agrees with the verb's class."""

from __future__ import annotations

import asyncio

import psycopg

from shardman.client.calls import call
from shardman.commands.base import Command
from shardman.commands.registry import COMMANDS
from shardman.pg.schema import install
from sql.databases import LORD, Nodes

#: Arguments with their defaults, and whether the function is pinned against the caller's settings.
FUNCTIONS = """
select p.proname, pg_get_function_arguments(p.oid) as arguments,
       'standard_conforming_strings=on' = any (p.proconfig) as pinned,
       obj_description(p.oid, 'pg_proc') as comment
  from pg_proc p where p.pronamespace = 'shardman'::regnamespace and p.proname = any (%s)
"""


def declared(verb: type[Command]) -> str:
    """The arguments as ``pg_get_function_arguments`` prints them."""
    return ", ".join(
        f"{a.name} {a.sql_type}" + ("" if a.required else f" DEFAULT {default(a.default)}")
        for a in verb.arguments()
    )


def default(value: object) -> str:
    if isinstance(value, str):
        return f"'{value}'::text"
    return "NULL::" if value is None else str(value).lower()


def test_functions_have_the_arguments_of_their_verbs(nodes: Nodes) -> None:
    found = nodes[LORD].rows(FUNCTIONS, list(COMMANDS))
    # An overload that an older version left would make a call ambiguous.
    assert sorted(name for name, *_ in found) == sorted(COMMANDS)
    for name, arguments, pinned, comment in found:
        plain = arguments.replace("NULL::integer", "NULL::").replace("NULL::text", "NULL::")
        assert plain == declared(COMMANDS[name]), name
        assert pinned, name
        assert comment, name


def test_what_a_function_submits_its_verb_reads(nodes: Nodes) -> None:
    lord = nodes[LORD]
    words = {"part_name": "acc_1", "relation": "acc", "expr": "id", "connstring": "host=nowhere"}
    for verb in COMMANDS.values():
        given = {
            a.name: a.choices[0]
            if a.choices
            else words.get(a.name, {int: 1, bool: True, str: "x"}[a.type])
            for a in verb.arguments()
        }
        call = ", ".join(f"{name} => %s" for name in given)
        cmd = lord.value(f"select shardman.{verb.name}({call})", *given.values())
        options = lord.rows(
            "select name, opt from shardman.cmd_opts where cmd_id = %s order by id", cmd
        )
        assert verb.from_options(options) == verb(**given)
        assert [name for name, _ in options] == list(given)


def test_a_worker_of_version_0_1_submits_no_names(nodes: Nodes) -> None:
    lord = nodes[LORD]
    cmd = lord.value(
        "insert into shardman.inbox (cmd_type, opts, submitted_by)"
        " values ('move_part', array['acc_1', '2', null], 'me') returning id"
    )
    options = lord.rows(
        "select name, opt from shardman.cmd_opts where cmd_id = %s order by id", cmd
    )
    assert COMMANDS["move_part"].from_options(options) == COMMANDS["move_part"](
        part_name="acc_1", dest=2, src=None
    )
    assert (
        lord.value(
            "insert into shardman.inbox (cmd_type, opts) values ('cancel', array[%s::text]) returning id",
            cmd,
        )
        == 1
    )


def upgrade(dsn: str) -> None:
    """Installs the schema, as the shardlord does on a worker, and nothing more."""

    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            await install(conn)

    asyncio.run(run())


def test_a_worker_that_is_upgraded_can_submit_at_once(nodes: Nodes) -> None:
    """The table through which version 0.1 submitted goes together with the functions that knew it."""
    worker = nodes[1]
    worker.reconcile()
    server = worker.value(
        "select s.srvname from pg_foreign_table f join pg_foreign_server s on s.oid = f.ftserver"
        " where f.ftrelid = 'shardman.lord_inbox'::regclass"
    )
    worker.run(
        "drop foreign table shardman.lord_inbox; create foreign table shardman.lord_inbox (id bigint,"
        " cmd_type text, opts text[], secret text, submitted_by text)"
        f" server {server} options (schema_name 'shardman', table_name 'inbox', batch_size '1')"
    )
    upgrade(worker.dsn)
    cmd = worker.value("select shardman.rm_node(2)")
    assert nodes[LORD].rows(
        "select name, opt from shardman.cmd_opts where cmd_id = %s order by id", cmd
    ) == [("node_id", "2"), ("force", "false")]


def test_the_client_can_call_a_function_that_lacks_a_later_argument(nodes: Nodes) -> None:
    lord = nodes[LORD]
    lord.run(
        "drop function shardman.rm_node(int, bool); create function shardman.rm_node(node_id int)"
        " returns bigint language sql as 'select 7::bigint'"
    )
    given = {"node_id": 2, "force": False}
    with lord.connect() as session:
        assert session.execute(call("rm_node", given), given).fetchone() == (7,)


def test_the_view_shows_options_by_name(nodes: Nodes) -> None:
    lord = nodes[LORD]
    lord.value("select shardman.move_part('acc_1', 2)")
    lord.value(
        "insert into shardman.inbox (cmd_type, opts, submitted_by)"
        " values ('move_part', array['acc_1', '2', null], 'me')"
        " returning id"
    )
    named, without_names = lord.rows("select opts from shardman.commands order by id")
    assert named[0].startswith("part_name=acc_1, dest=2")
    assert without_names == ("acc_1, 2",)


def test_an_overload_of_another_version_goes(nodes: Nodes) -> None:
    """A call that fits both would be ambiguous. It has all that the functions of a version have."""
    lord = nodes[LORD]
    lord.run(
        "create function shardman.move_part(part_name text, dest int) returns bigint"
        " language plpgsql set search_path = pg_catalog set standard_conforming_strings = on"
        " set quote_all_identifiers = off set array_nulls = on"
        " as $$ begin return shardman.submit('move_part', '{}'); end $$"
    )
    upgrade(lord.dsn)
    count = "select count(*) from pg_proc where proname = 'move_part'"
    assert lord.value(count) == 1
    assert lord.value("select shardman.move_part('acc_1', 2)") == 1


def test_an_upgrade_does_not_fire_event_triggers_that_are_half_laid(nodes: Nodes) -> None:
    """They call functions that the version before had not, which come later in the same upgrade."""
    worker = nodes[1]
    worker.run("drop function shardman.start_shared_ddl(text, text, text)")
    upgrade(worker.dsn)
    worker.run("comment on schema public is 'x'")


def test_no_argument_hides_behind_plpgsqls_own_variable(nodes: Nodes) -> None:
    """``found`` in PL/pgSQL is whether the last statement found a row, whatever was given under that name."""
    assert not nodes[LORD].rows(
        "select oid::regprocedure::text from pg_proc"
        " where pronamespace = 'shardman'::regnamespace and 'found' = any (proargnames)"
        " and prolang = (select oid from pg_language where lanname = 'plpgsql')"
    )
