"""shardman.partition_number says in which partition a row lies, for every type that a key may have."""

from __future__ import annotations

import json

import pytest

from sql.databases import Node

COUNTS = (1, 2, 3, 12, 512, 4095)
#: A value of each type that shardman.hashes_alike names, from a number i.
VALUES = {
    "int2": "(i * 77 - 15000)::int2",
    "int4": "i * 7919 - 1400000",
    "int8": "i * 123456789012345 - 25000000000000000",
    "oid": "i::oid",
    "numeric": "(i - 200) / 7.0",
    "float4": "((i - 200) / 7.0)::float4",
    "float8": "((i - 200) / 7.0)::float8",
    "bool": "i % 2 = 0",
    "text": "'ä' || i",
    "varchar(20)": "'x' || i",
    "char(9)": "'x' || i",
    "name": "'x' || i",
    '"char"': "chr(i % 90 + 30)",
    "bytea": "decode(md5(i::text), 'hex')",
    "uuid": "md5(i::text)::uuid",
    "date": "date '2020-01-01' + i",
    "time": "time '10:00' + i * interval '1 s'",
    "timetz": "timetz '10:00+02' + i * interval '1 s'",
    "timestamp": "timestamp '2020-01-01' + i * interval '1 h'",
    "timestamptz": "timestamptz '2020-01-01' + i * interval '1 h'",
    "interval": "i * interval '1 h'",
    "inet": "inet '10.0.0.0' + i",
    "cidr": "('10.0.' || i % 250 || '.0/24')::cidr",
    "macaddr": "('08:00:2b:01:02:' || lpad(to_hex(i % 256), 2, '0'))::macaddr",
    "macaddr8": "('08:00:2b:01:02:03:04:' || lpad(to_hex(i % 256), 2, '0'))::macaddr8",
    "jsonb": "jsonb_build_object('a', i)",
    "int4[]": "array[i, i + 1]",
    "text[]": "array['a' || i]",
    "public.whole": "i",
    "public.word": "'x' || i",
}
DOMAINS = "create domain public.whole as int; create domain public.word as varchar(30)"
KEYS = [
    *([each] for each in VALUES),
    ["int4", "text"],
    ["date", "bool"],
    ["uuid", "timestamptz", "int8", "varchar(20)"],
]


def test_every_type_of_a_key_is_tried(node: Node) -> None:
    node.run(DOMAINS)
    known = {
        row[0]
        for row in node.rows(
            "select oid::regtype::text from pg_type where typnamespace = 'pg_catalog'::regnamespace"
            " and typtype = 'b' and typcategory <> 'A' and shardman.hashes_alike(oid)"
        )
    }
    tried = {
        row[0] for row in node.rows("select t::regtype::text from unnest(%s::text[]) t", [*VALUES])
    }
    assert known <= tried


@pytest.mark.parametrize("types", KEYS, ids=", ".join)
def test_it_is_what_postgresql_computes(node: Node, types: list[str]) -> None:
    cols = [f"c{n}" for n in range(len(types))]
    listed = ", ".join(cols)
    made = ", ".join(f"{c} {t}" for c, t in zip(cols, types, strict=True))
    values = ", ".join(
        f"case when i % 17 <> {n} then {VALUES[t]} end::{t} as {c}"
        for n, (c, t) in enumerate(zip(cols, types, strict=True))
    )
    node.run(DOMAINS)
    node.run(f"create table parent ({made}) partition by hash ({listed})")
    node.run(f"create table rows as select {values} from generate_series(1, 400) as i")
    for count in COUNTS:
        definition = {"partitions_count": count, "key": [{"sql": c} for c in cols]}
        number = node.value(
            "select shardman.partition_number('parent'::regclass, %s)", json.dumps(definition)
        )
        wrong = (
            f"select {listed}, {number} from rows where not coalesce("
            f"satisfies_hash_partition('parent'::regclass, {count}, ({number})::int, {listed}), false)"
        )
        assert node.rows(wrong) == []
