"""What may be in a question that is answered in parts: it gives the same on each node, and in each session."""

from __future__ import annotations

#: How partial results are put together; each is cast back to the type of the part.
COMBINED = {
    "count": "sum",
    "sum": "sum",
    "min": "min",
    "max": "max",
    "bool_and": "bool_and",
    "bool_or": "bool_or",
    "every": "bool_and",
}

#: Made of the count, the sum and the sum of squares.
SPREADS = frozenset(("variance", "var_samp", "var_pop", "stddev", "stddev_samp", "stddev_pop"))

#: They put values in an order; each of their arguments may be a column.
SORTED = frozenset(("array_agg", "string_agg"))
#: What a sub-select may make of many rows.
LOOKED_UP = frozenset(("bool_and", "bool_or", "count", "every", "max", "min"))

#: Functions of their arguments alone, that give one value and never an array.
SCALARS = frozenset(
    """
    abs ascii bit_length btrim ceil ceiling char_length character_length chr date_part date_trunc div
    extract floor gcd greatest initcap lcm least left length lower lpad ltrim md5 mod nullif
    octet_length position power repeat replace reverse right round rpad rtrim sign split_part sqrt
    starts_with strpos substr substring timezone translate trunc upper
    """.split()  # noqa: SIM905
)

OPERATORS = frozenset(
    ("=", "<>", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "||", "~", "!~", "~*", "!~*")
)

_EXACT = ("smallint", "integer", "bigint", "numeric")

#: Types of columns whose sums do not depend on the order.
EXACT_TYPES = frozenset(_EXACT)
#: The same, as casts have them.
EXACT_CASTS = frozenset(("int2", "int4", "int8", "numeric"))

#: Casts of whatever it be to these do not read the clock, as one of a text to a date may.
PLAIN_CASTS = EXACT_CASTS | {"bool", "float4", "float8", "text", "varchar"}

#: Types of columns, in the default collation.
COLUMN_TYPES = frozenset(
    (
        *_EXACT,
        "real",
        "double precision",
        "text",
        "character varying",
        "character",
        "boolean",
        "date",
        "timestamp without time zone",
        "timestamp with time zone",
        "uuid",
    )
)

#: Types whose values are written alike when they are equal.
SAME_WHEN_EQUAL = COLUMN_TYPES - {"numeric", "real", "double precision", "character"}

#: Types of what nodes answer, and the name of each.
ANSWER_TYPES = {
    16: "bool",
    20: "int8",
    21: "int2",
    23: "int4",
    25: "text",
    700: "float4",
    701: "float8",
    1042: "bpchar",
    1043: "varchar",
    1082: "date",
    1114: "timestamp",
    1184: "timestamptz",
    1186: "interval",
    1700: "numeric",
    2950: "uuid",
}

#: Types whose values compare in Python as they do in PostgreSQL, with their numbers.
MERGED_TYPES = {
    "boolean": 16,
    "bigint": 20,
    "smallint": 21,
    "integer": 23,
    "date": 1082,
    "timestamp without time zone": 1114,
    "timestamp with time zone": 1184,
    "numeric": 1700,
    "uuid": 2950,
}
