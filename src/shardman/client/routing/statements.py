"""The statements that read and write rows: which tables they name, and what they say of the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from shardman.client.routing import merging
from shardman.client.routing.expressions import Expressions, Level, Node, NotHere, is_star
from shardman.client.routing.facts import Facts, Relation
from shardman.client.routing.guards import place
from shardman.client.routing.known import MERGE_FIELDS, SELECT_FIELDS, WRITE_FIELDS
from shardman.client.routing.names import NAME, plain
from shardman.client.routing.parting import listed
from shardman.client.routing.picture import Picture, quoted
from shardman.client.routing.placeholders import Text
from shardman.client.routing.plan import Target


class Statements(Expressions):
    """Walks through a statement and notes what it finds.

    Args:
        text: as it was sent.
        read: the same with its placeholders as the parser knows them.
        with_parameters: whether % in the text is said twice.
    """

    def __init__(self, text: bytes, read: Text, picture: Picture, with_parameters: bool) -> None:
        self.text = text
        self.read = read
        self.bytes = read.query.encode()
        self.picture = picture
        self.with_parameters = with_parameters
        self.facts = Facts(read.parameters)
        #: The sharded tables in it.
        self.tables: list[Relation] = []
        self.levels: list[Level] = []
        #: Why it goes through the node that was connected to, although all in it is understood.
        self.through = ""
        #: A table in it has a column of a type that somebody has made.
        self.own_types = False
        #: Rows are locked by FOR UPDATE or the like.
        self.locks = False
        #: A shared table is in it.
        self.shares = False
        self.writes = False

    # -- statements -----------------------------------------------------------------------------

    def statement(self, kind: str, body: Node, level: Level) -> None:
        handle = {
            "SelectStmt": self.select,
            "InsertStmt": self.insert,
            "UpdateStmt": self.update,
            "DeleteStmt": self.delete,
            "MergeStmt": self.merge,
        }.get(kind)
        if handle is None:
            raise NotHere(f"{kind} in it is not understood")
        fields = {"SelectStmt": SELECT_FIELDS, "MergeStmt": MERGE_FIELDS}.get(kind, WRITE_FIELDS)
        if not body.keys() <= fields:
            raise NotHere(f"{', '.join(body.keys() - fields)} is not understood")
        self.levels.append(level)
        handle(body, level)

    def with_(self, body: Node, level: Level) -> None:
        clause = body.get("withClause")
        if clause is None:
            return
        if clause.get("recursive"):
            level.ctes |= {c["CommonTableExpr"]["ctename"] for c in clause["ctes"]}
        for each in clause["ctes"]:
            cte = each["CommonTableExpr"]
            if not cte.keys() <= {
                "ctename",
                "aliascolnames",
                "ctematerialized",
                "ctequery",
                "location",
            }:
                raise NotHere("a clause of WITH is not understood")
            ((kind, query),) = cte["ctequery"].items()
            self.statement(kind, query, Level(level.outer, level.ctes))
            level.ctes |= {cte["ctename"]}

    def select(self, body: Node, level: Level) -> None:
        self.with_(body, level)
        for side in ("larg", "rarg"):
            if side in body:
                self.statement("SelectStmt", body[side], Level(level.outer, level.ctes))
        self.locks = self.locks or "lockingClause" in body
        self.from_(body.get("fromClause", ()), level)
        self.where(body.get("whereClause"), level)
        for part in ("distinctClause", "targetList", "groupClause", "havingClause", "windowClause",
                     "valuesLists", "sortClause", "limitOffset", "limitCount"):  # fmt: skip
            self.expression(body.get(part), level)

    def update(self, body: Node, level: Level) -> None:
        self.with_(body, level)
        target = self.written(body["relation"], level)
        if target.table is not None and not target.table.shared:
            for each in body["targetList"]:
                if each["ResTarget"]["name"] in target.key_names:
                    self.through = "it sets a column of the key"
        level.bare = not body.keys() & {"whereClause", "returningList"}
        self.from_(body.get("fromClause", ()), level)
        self.where(body.get("whereClause"), level)
        self.expression(body["targetList"], level)
        self.expression(body.get("returningList"), level)

    def delete(self, body: Node, level: Level) -> None:
        self.with_(body, level)
        self.written(body["relation"], level)
        level.bare = not body.keys() & {"whereClause", "returningList"}
        self.from_(body.get("usingClause", ()), level)
        self.where(body.get("whereClause"), level)
        self.expression(body.get("returningList"), level)

    def insert(self, body: Node, level: Level) -> None:
        self.with_(body, level)
        conflict = body.get("onConflictClause")
        names_index = conflict is not None and (
            "infer" in conflict or conflict["action"] == "ONCONFLICT_UPDATE"
        )
        target = self.written(body["relation"], level, data=names_index, stored=True)
        if "selectStmt" not in body:
            raise NotHere("DEFAULT VALUES")
        rows = body["selectStmt"]["SelectStmt"]
        inner = Level(level.outer, level.ctes)
        self.statement("SelectStmt", rows, inner)
        if target.table is not None and not target.table.shared:
            self._new_rows(target, body, rows, inner)
        if conflict is not None:
            self._conflict(conflict, target, level)
        self.expression(body.get("returningList"), level)

    def merge(self, body: Node, level: Level) -> None:
        target = self.written(body["relation"], level, data=True, stored=True)
        if target.table is None or target.table.shared:
            raise NotHere("MERGE into what is no sharded table")
        try:
            rows = merging.source(body["sourceRelation"])
            keys = merging.matched(body["joinCondition"], target.alias, target.key_names, rows)
        except merging.NotByKey as why:
            self.through = str(why)
            return
        self.expression([list(row) for row in rows.values], Level())
        level.merges = True
        level.place = place(body["joinCondition"], self.bytes)
        self._add(level, Relation(rows.alias))
        self.expression(body["joinCondition"], level)
        for each in body["mergeWhenClauses"]:
            self._when(each["MergeWhenClause"], target, level, rows, keys)
        self.expression(body.get("returningList"), level)
        for row in rows.values:
            named = dict(zip(rows.columns, row, strict=True))
            values = {name: named[column] for name, column in keys.items()}
            self.facts.row(target, values, lambda _ref: None)

    def _when(
        self,
        clause: Node,
        target: Relation,
        level: Level,
        rows: merging.Rows,
        keys: Mapping[str, str],
    ) -> None:
        assert target.table is not None
        if clause["matchKind"] == "MERGE_WHEN_NOT_MATCHED_BY_SOURCE":
            self.through = "BY SOURCE: it looks at all rows of the table"
        self.expression(clause.get("condition"), level)
        self.expression(clause.get("values"), level)
        columns = [c["ResTarget"] for c in clause.get("targetList", ())]
        if clause["commandType"] == "CMD_UPDATE":
            self.expression(clause["targetList"], level)
            if any(c["name"] in target.key_names for c in columns):
                self.through = "it sets a column of the key"
        elif clause["commandType"] == "CMD_INSERT":
            if any("indirection" in c for c in columns):
                raise NotHere("a part of a column is written")
            names = [c["name"] for c in columns] or list(target.table.columns)
            given = dict(zip(names, clause.get("values", ()), strict=False))
            self._need_numbers(target, given)
            for name, column in keys.items():
                if merging.column(given.get(name, {}), rows) != column:
                    self.through = "it inserts another key than the one by which it is matched"

    def _conflict(self, conflict: Node, target: Relation, level: Level) -> None:
        infer = conflict.get("infer", {})
        if "conname" in infer:
            self.through = "ON CONFLICT ON CONSTRAINT: each partition has a name of its own for it"
        level.relations.append(Relation("excluded"))
        self.expression(infer.get("indexElems"), level)
        self.expression(infer.get("whereClause"), level)
        for each in conflict.get("targetList", ()):
            if each["ResTarget"]["name"] in target.key_names:
                self.through = "it sets a column of the key"
        self.expression(conflict.get("targetList"), level)
        self.expression(conflict.get("whereClause"), level)

    def _new_rows(self, target: Relation, body: Node, rows: Node, inner: Level) -> None:
        assert target.table is not None
        given = [c["ResTarget"] for c in body.get("cols", ())]
        if any("indirection" in c for c in given):
            raise NotHere("a part of a column is written")
        columns = [c["name"] for c in given] or list(target.table.columns)
        if "valuesLists" in rows:
            lists = [r["List"]["items"] for r in rows["valuesLists"]]
        elif rows.get("op", "SETOP_NONE") == "SETOP_NONE":
            lists = [[t["ResTarget"]["val"] for t in rows.get("targetList", ())]]
            many = listed(rows, len(given))
            if many is not None and len(lists[0]) == 1 and is_star(lists[0][0]):
                columns_given = dict(zip(columns, many, strict=True))
                self._need_numbers(target, columns_given)
                self.facts.lists(target, columns_given)
                target.target = replace(target.target, zipped=True)
                return
            if any(is_star(e) for e in lists[0]):
                self.through = "the rows to be written are those of a *"
        else:
            self.through = "the rows to be written are those of a UNION"
            return
        for items in lists:
            named = dict(zip(columns, items, strict=False))
            self._need_numbers(target, named)
            self.facts.row(target, named, lambda ref: self.column(ref, inner))

    def _need_numbers(self, target: Relation, given: Mapping[str, Node]) -> None:
        """A row that is written gives all columns whose default is the next number of a sequence."""
        assert target.table is not None
        left = set(target.table.columns) - {c for c, e in given.items() if "SetToDefault" not in e}
        if left & target.table.numbered:
            raise NotHere("a column takes the next number of a sequence")

    def written(
        self, range_var: Node, level: Level, *, data: bool = False, stored: bool = False
    ) -> Relation:
        self.writes = True
        relation = self.relation(range_var, level, written=True)
        if relation.table is not None and not relation.table.shared:
            relation.target = replace(relation.target, data=data, stored=stored)
        return relation

    # -- what they read -------------------------------------------------------------------------

    def relation(self, range_var: Node, level: Level, *, written: bool = False) -> Relation:
        """What a name in FROM, or behind INSERT INTO, means."""
        schema, name = range_var.get("schemaname"), range_var["relname"]
        alias = range_var.get("alias", {})
        called = alias.get("aliasname", name)
        if schema is None and name in level.ctes and not written:
            return self._add(level, Relation(called))
        table = self.picture.table(schema, name)
        if table is None or "catalogname" in range_var:
            raise NotHere(f"{name} is no sharded or shared table")
        self.own_types = self.own_types or table.own_types
        if table.problem:
            self.through = f"{name}: {table.problem}"
            return self._add(level, Relation(called))
        if table.shared:
            self.shares = True
            return self._add(level, Relation(called, table))
        if not range_var.get("inh", False) or "colnames" in alias:
            self.through = "ONLY, or an alias with columns"
            return self._add(level, Relation(called))
        suffix = "" if alias else " as " + self._escaped(quoted(name))
        target = Target(table, self._span(range_var), suffix, (), stored=False, data=False)
        relation = Relation(called, table, target)
        self.tables.append(relation)
        level.sharded.append(relation)
        return self._add(level, relation)

    def _add(self, level: Level, relation: Relation) -> Relation:
        level.relations.append(relation)
        return relation

    def _escaped(self, name: str) -> str:
        return name.replace("%", "%%") if self.with_parameters else name

    def _span(self, range_var: Node) -> tuple[int, int]:
        start = range_var.get("location", 0)
        rest = self.bytes[start:].decode()
        match = NAME.match(rest)
        wanted = [n for n in (range_var.get("schemaname"), range_var["relname"]) if n is not None]
        if match is None or [plain(g) for g in match.groups() if g is not None] != wanted:
            raise NotHere("the name of a table is written in an unusual way")
        if rest[match.end() :].lstrip().startswith(("*", "/*", "--", ".")):
            raise NotHere("the name of a table is written in an unusual way")
        end = start + len(match[0].encode())
        first, last = self.read.origin(start, end)
        written = self.text[first:last]
        if self.with_parameters:
            written = written.replace(b"%%", b"%")
        if written != self.bytes[start:end]:
            raise NotHere("the name of a table is written in an unusual way")
        return first, last

    def from_(self, items: Sequence[Node], level: Level) -> None:
        for item in items:
            self.from_item(item, level)

    def from_item(self, item: Node, level: Level) -> list[Relation]:
        """Adds what is in an item of FROM; returns it."""
        before = len(level.relations)
        ((kind, body),) = item.items()
        if kind == "RangeVar":
            self.relation(body, level)
        elif kind == "JoinExpr":
            self.join(body, level)
        elif kind == "RangeSubselect":
            around = (level, *level.outer) if body.get("lateral") else level.outer
            ((inner, query),) = body["subquery"].items()
            self.statement(inner, query, Level(around, level.ctes))
            self._add(level, Relation(body.get("alias", {}).get("aliasname", "")))
        elif kind == "RangeFunction" and not body.keys() & {"coldeflist", "is_rowsfrom"}:
            self.expression(body["functions"], level)
            self._add(level, Relation(body.get("alias", {}).get("aliasname", "")))
        else:
            raise NotHere(f"{kind} is not understood")
        return level.relations[before:]

    def join(self, body: Node, level: Level) -> None:
        if not body.keys() <= {
            "jointype",
            "larg",
            "rarg",
            "quals",
            "usingClause",
            "isNatural",
            "rtindex",
        }:
            raise NotHere("an alias of a join, or a join that is not understood")
        left = self.from_item(body["larg"], level)
        right = self.from_item(body["rarg"], level)
        inner = {
            "JOIN_INNER": [*left, *right],
            "JOIN_LEFT": right,
            "JOIN_RIGHT": left,
            "JOIN_FULL": [],
        }[body["jointype"]]
        for each in body.get("usingClause", ()):
            name = each["String"]["sval"]
            level.merged.add(name)
            if len(left) == 1 and len(right) == 1:
                self.facts.equal((left[0], name), (right[0], name), inner)
        if body.get("isNatural"):
            level.merged |= {c for r in (*left, *right) if r.table for c in r.table.columns}
            if any(r.table is None for r in (*left, *right)):
                raise NotHere("NATURAL JOIN")
        self.where(body.get("quals"), level, only=inner)

    def where(
        self, condition: Node | None, level: Level, only: list[Relation] | None = None
    ) -> None:
        """What a condition says of keys, and whether all in it is understood.

        Args:
            only: of what it says something: the condition of an outer join says nothing of the side whose rows
                are all kept.
        """
        if condition is None:
            return
        about = level.relations if only is None else only
        if only is None:
            level.place = place(condition, self.bytes)
        self.facts.condition(condition, lambda ref: self.column(ref, level), about)
        self.expression(condition, level)

    def column(self, fields: list[Node], level: Level) -> tuple[Relation, str] | None:
        """The relation of a column; None where it is not certain."""
        names = [f["String"]["sval"] for f in fields if "String" in f]
        if len(names) != len(fields) or not 0 < len(names) < 3:
            return None
        for each in (level, *level.outer):
            if len(names) == 2:
                found = [r for r in each.relations if r.alias == names[0]]
                if found:
                    return (found[0], names[1]) if len(found) == 1 else None
                continue
            if any(r.table is None for r in each.relations) or names[0] in each.merged:
                return None
            found = [r for r in each.relations if r.table and names[0] in r.table.columns]
            if found:
                return (found[0], names[0]) if len(found) == 1 else None
        return None
