# ruff: noqa: E501
"""Statements at random about keys, in every shape that the client reads; most of them about one."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from psycopg.types.numeric import Int4, Int8

Made = tuple[str, list[Any]]


class Maker:
    """Makes statements; the same seed, the same statements."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        self.params: list[Any] = []

    def value(self, key: Any) -> str:
        """A key as a parameter or a literal, with or without a cast."""
        cast = "text" if isinstance(key, str) else self.r.choice(("int", "bigint"))
        how = self.r.randrange(6)
        if how < 3:
            kind = type(key) if isinstance(key, str) else self.r.choice((int, int, Int4, Int8))
            self.params.append(kind(key))
            return "%s" + ("", "::" + cast, "")[how]
        literal = f"'{key}'" if isinstance(key, str) or how == 5 else str(key)
        return literal + ("::" + cast if how == 4 else "")

    def key(self) -> int:
        return self.r.choice((7, 7, 7, 7, self.r.randint(-3, 30)))

    def word(self) -> str:
        return self.r.choice(("ä7", "ä7", f"w{self.r.randint(1, 9)}"))

    def is_(self, column: str) -> str:
        """A condition on a column of the key."""
        text = column.endswith("code")
        one: Callable[[], Any] = self.word if text else self.key
        how = self.r.randrange(10)
        if how == 0:
            return f"{column} in ({self.value(one())}, {self.value(one())})"
        if how == 1:
            self.params.append([one() for _ in range(self.r.randint(1, 2))])
            return f"{column} = any(%s{'::text[]' if text else ''})"
        if how == 2:
            return f"({column} = {self.value(one())} or {column} = {self.value(one())})"
        if how == 3:
            return f"{self.value(one())} = {column}"
        if how == 4 and not text:
            return f"{column} between {self.key()} and {self.key()}"
        return f"{column} = {self.value(one())}"

    def extra(self, alias: str) -> str:
        return self.r.choice(
            (
                "",
                "",
                f" and {alias}.n > 2",
                f" and {alias}.v like 'v%%'",
                f" and {alias}.n is not null",
            )
        )

    def select(self) -> Made:
        self.params = []
        shapes = (
            self.plain,
            self.joined,
            self.outer,
            self.nested,
            self.cte,
            self.words,
            self.united,
        )
        return self.r.choice(shapes)(), self.params

    def plain(self) -> str:
        where = self.is_("id") + self.extra("acc")
        return self.r.choice(
            (
                f"select * from acc where {where}",
                f"select count(*), sum(n), max(v) from acc where {where}",
                f"select acc.id, upper(acc.v) from public.acc where {where.replace('acc.', '')}",
                f"select id, row_number() over (order by id) from acc where {where} order by 1 limit 3",
            )
        ).replace("public.acc", "acc")

    def joined(self) -> str:
        where = self.is_(self.r.choice(("a.id", "o.acc_id"))) + self.extra("a")
        return self.r.choice(
            (
                f"select a.id, o.no, o.sku from acc a join ord o on o.acc_id = a.id where {where}",
                f"select a.id, o.no from acc a, ord o where o.acc_id = a.id and {where}",
                f"select a.*, r.rate from acc a join ord o on a.id = o.acc_id join rate r on r.sku = o.sku where {where}",
                f"select a.id, o.no from acc a join ord o on {where} where a.id = o.acc_id",
            )
        )

    def outer(self) -> str:
        kind = self.r.choice(("left", "right", "full"))
        on = self.r.choice(("", "", " and " + self.is_(self.r.choice(("a.id", "o.acc_id")))))
        if kind == "full":
            on = ""
        where = self.is_(self.r.choice(("a.id", "o.acc_id", "a.id")))
        return f"select a.id, o.acc_id, o.no from acc a {kind} join ord o on o.acc_id = a.id{on} where {where}"

    def nested(self) -> str:
        inner = self.r.choice(("", " and " + self.is_("o.acc_id")))
        outer = self.r.choice(("", self.is_("acc.id") + " and "))
        negation = self.r.choice(("", "not "))
        return self.r.choice(
            (
                f"select id from acc where {outer}{negation}exists (select 1 from ord o where o.acc_id = acc.id{inner})",
                f"select id from acc where {outer}id {negation}in (select o.acc_id from ord o where true{inner})",
                f"select id, (select count(*) from ord o where o.acc_id = acc.id{inner}) from acc where {outer}true",
                f"select s.no from acc, lateral (select * from ord o where o.acc_id = acc.id{inner}) s where {outer}true",
            )
        )

    def cte(self) -> str:
        return (
            f"with a as (select * from acc where {self.is_('id')}), acc as (select 7::bigint as id)"
            f" select a.id, a.v from a join acc on {self.r.choice(('true', 'acc.id = a.id', 'acc.id = 7'))}"
        )

    def words(self) -> str:
        return f"select * from word where {self.is_('code')}"

    def united(self) -> str:
        op = self.r.choice(("union", "union all", "except", "intersect"))
        return f"select id, v from acc where {self.is_('id')} {op} select id, v from acc where {self.is_('id')}"

    def write(self) -> Made:
        self.params = []
        text = self.r.choice(
            (self.insert, self.upsert, self.update, self.delete, self.with_write, self.merge)
        )()
        return text, self.params

    def insert(self) -> str:
        k = self.value(self.r.randint(100, 130))
        k2 = self.value(self.r.randint(100, 130))
        return self.r.choice(
            (
                f"insert into acc values ({k}, 'x', 1) returning *",
                f"insert into acc (v, id) values ('x%%', {k}) returning acc.*",
                f"insert into acc as a (v, id) values ('x', {k}), (upper('y'), {k2}) returning a.id, a.n",
                f"insert into ord (acc_id, no, sku) select id, 9, v from acc where {self.is_('id')} returning *",
                f"insert into ord (acc_id, no) values ({self.value(self.key())}, 77) returning *",
                f"insert into word (code, n) values ({self.value(self.word() + 'x')}, 1) returning *",
            )
        )

    def upsert(self) -> str:
        k = self.value(self.key())
        then = self.r.choice(
            (
                "do nothing",
                "(id) do nothing",
                "(id) do update set v = excluded.v || acc.v",
                "(id) do update set n = acc.n + 1 where acc.n > 3",
            )
        )
        return f"insert into acc (id, v) values ({k}, 'new') on conflict {then} returning id, v, n"

    def merge(self) -> str:
        k = self.value(self.r.choice((7, 7, self.r.randint(100, 130))))
        source = self.r.choice(
            (
                f"(values ({k}, 'm')) as s (id, v) on acc.id = s.id",
                f"(values ({k}, 'm'), ({self.value(self.key())}, 'o')) as s (id, v) on s.id = acc.id and acc.n > 1",
                f"(select {k} as id, 'q' as v) s on acc.id = s.id and s.v < 'r'",
            )
        )
        whens = self.r.sample(
            (
                "when matched and acc.n > 4 then delete",
                "when matched then update set v = s.v || acc.v, n = acc.n + 1",
                "when not matched then insert (v, id) values (s.v, s.id)",
                "when not matched and s.v = 'o' then do nothing",
            ),
            k=2,
        )
        return f"merge into acc using {source} {' '.join(whens)}"

    def update(self) -> str:
        where = self.is_("acc.id") + self.extra("acc")
        return self.r.choice(
            (
                f"update acc set v = 'u', n = n + 1 where {where} returning *",
                f"update acc a set v = o.sku from ord o where o.acc_id = a.id and o.no = 1 and {self.is_('a.id')} returning a.*",
                f"update word set n = 5 where {self.is_('code')} returning n",
            )
        )

    def delete(self) -> str:
        return self.r.choice(
            (
                f"delete from ord where {self.is_('acc_id')} returning *",
                f"delete from ord o using acc a where a.id = o.acc_id and {self.is_('a.id')} returning o.no, a.v",
            )
        )

    def with_write(self) -> str:
        return (
            f"with gone as (delete from ord where {self.is_('acc_id')} returning *)"
            f" select a.id, g.no from gone g join acc a on a.id = g.acc_id where {self.is_('a.id')}"
        )
