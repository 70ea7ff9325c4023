"""Triggers of an application on a shared table: what is put before their conditions, and taken away again."""

from __future__ import annotations

from sql.databases import Node

TABLE = r"""
create table "T""t" (a int primary key, b text, c bool);
create function act() returns trigger language plpgsql as 'begin return new; end';
create function says(bool) returns bool language sql as 'select $1';
create trigger t1 before insert on "T""t" for each row execute function act();
create trigger t2 before update of b on "T""t" for each row
    when (old.* is distinct from new.*) execute function act();
create trigger t3 before update on "T""t" for each row when (new.c) execute function act();
create trigger t4 before update on "T""t" for each row when (new.c and old.c and says(new.c))
    execute function act('it''s EXECUTE FUNCTION x', E'b''\\"');
create trigger t5 before update on "T""t" for each row
    when (says(new.c) or old.b = ') FOR EACH ROW ("') execute function act();
create trigger "t 6 FOR EACH ROW ""WHEN (" after truncate on "T""t" for each statement execute function act();
create constraint trigger t7 after insert on "T""t" deferrable initially deferred
    for each row when (new.a > 5) execute function act();
create trigger t8 after insert on "T""t" referencing new table as n for each statement execute function act();
alter table "T""t" disable trigger t3;
comment on trigger t4 on "T""t" is 'it''s four';
"""
ALL = """
select t.name, t.definition, t.enabled, t.comment
  from shardman.own_triggers('public."T""t"'::regclass) t order by 1
"""


def test_every_kind_of_trigger_gets_its_own_condition_back(node: Node) -> None:
    node.run(TABLE)
    before = node.rows(ALL)
    assert len(before) == 8
    node.rows("""select shardman.guard_triggers('public."T""t"'::regclass)""")
    guarded = node.rows(ALL)
    assert all(row[1].count("shardman.fires_here()") == 1 for row in guarded)
    assert [(r[0], *r[2:]) for r in guarded] == [(r[0], *r[2:]) for r in before]
    # What has it already is left.
    node.rows("""select shardman.guard_triggers('public."T""t"'::regclass)""")
    assert node.rows(ALL) == guarded
    assert node.rows(ALL.replace("t.definition", "t.plain")) == before
    node.rows("""select shardman.free_triggers('public."T""t"'::regclass)""")
    assert node.rows(ALL) == before
