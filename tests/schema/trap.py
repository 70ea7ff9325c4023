"""A trap on one node: whoever changes something there waits in his COMMIT, and fails then."""

from __future__ import annotations

_TRAP = """
set shardman.ddl = 'here';
create schema trap;
grant usage on schema trap to public;
create table trap.caught (id int);
grant insert on trap.caught to public;
create function trap.hold() returns trigger language plpgsql as $$
begin
    perform pg_sleep({seconds});
    if to_regclass('trap.passing') is null then
        raise exception 'trapped';
    end if;
    return new;
end $$;
create view trap.held as select pid from pg_stat_activity where wait_event = 'PgSleep';
create constraint trigger hold after insert on trap.caught
    deferrable initially deferred for each row execute function trap.hold();
create function trap.catch() returns event_trigger language plpgsql as $$
begin
    insert into trap.caught values (1);
end $$;
create event trigger a_trap on ddl_command_end when tag in ({tags}) execute function trap.catch();
"""
#: Takes it away.
NO_TRAP = "set shardman.ddl = 'here'; drop event trigger a_trap; drop schema trap cascade"
#: Whoever is held goes on now.
PASSING = "set shardman.ddl = 'here'; create table trap.passing ()"


def trap(seconds: float, *tags: str) -> str:
    """What sets it.

    Args:
        seconds: how long each waits.
        tags: of the statements that are caught.
    """
    return _TRAP.format(seconds=seconds, tags=", ".join(f"'{tag}'" for tag in tags))
