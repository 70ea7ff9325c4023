"""The hash of many values at once is that of each of them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shardman.client.loading.keys import _of_integers, _of_texts, _of_uuids
from shardman.client.loading.texts import encode, line_ends, readable
from shardman.client.loading.vectors import partition_numbers
from shardman.model.partition_hash import HASHERS, partition_number
from shardman.testing.hashes import VALUES

COUNT = 4000


def values(type_: str) -> list[Any]:
    r = random.Random(type_)
    return [VALUES[type_](r) for _ in range(COUNT)]


@pytest.mark.parametrize("type_", ["smallint", "integer", "bigint"])
def test_integers(type_: str) -> None:
    given = values(type_)
    found = _of_integers(pa.array([str(v) for v in given]))
    assert found is not None
    assert found.tolist() == [HASHERS[type_](v) for v in given]


def test_texts_also_as_a_slice() -> None:
    given = values("text")
    found = _of_texts(pa.array(["before", *given]).slice(1), -1)
    assert found is not None
    assert found.tolist() == [HASHERS["text"](v) for v in given]


def test_text_that_may_be_cut_is_not_told() -> None:
    assert _of_texts(pa.array(["abcd"]), 4 + 4) is not None
    assert _of_texts(pa.array(["abc  "]), 4 + 4) is None


def test_uuids_with_nulls() -> None:
    given = values("uuid")
    found = _of_uuids(pa.array([None, *(str(v) for v in given)]))
    assert found is not None
    assert found.tolist() == [0, *(HASHERS["uuid"](v) for v in given)]


@pytest.mark.parametrize(
    "odd", ["{6c1b0bd7-57d8-4e5d-9d24-6a7d3d1c2f50}", "6c1b0bd757d84e5d9d246a7d3d1c2f50", "x" * 36]
)
def test_uuids_written_otherwise_are_not_told(odd: str) -> None:
    assert _of_uuids(pa.array([odd])) is None


@pytest.mark.parametrize("odd", [" 7", "7.0", "x", "1_000", "9223372036854775808"])
def test_integers_written_otherwise_are_not_told(odd: str) -> None:
    assert _of_integers(pa.array([odd])) is None


def test_keys_of_several_columns() -> None:
    one, other = _of_integers(pa.array(["1", None, "3"])), _of_texts(pa.array(["a", "b", None]), -1)
    assert one is not None and other is not None
    valid = np.array([True, False, True]), np.array([True, True, False])
    found = partition_numbers([(one, valid[0]), (other, valid[1])], 97, 3)
    rows = [(1, "a"), (None, "b"), (3, None)]
    assert found.tolist() == [
        partition_number(
            [
                None if i is None else HASHERS["integer"](i),
                None if t is None else HASHERS["text"](t),
            ],
            97,
        )
        for i, t in rows
    ]


def test_lines_of_rows_that_have_several() -> None:
    rows = pa.RecordBatch.from_pydict({"a": ["x\ny", None, "\n\n", "z"], "n": [1, 2, 3, 4]})
    # The first row's are not counted by COPY.
    assert line_ends(rows).tolist() == [1, 2, 5, 6]


def test_values_that_csv_has_no_words_for() -> None:
    rows = pa.RecordBatch.from_pydict(
        {
            "bytes": [b"\x00a", None],
            "list": [[1, None], []],
            "texts": [['a"b', "c\\d", "NULL"], None],
            "deep": [[["x"], ["y"]], None],
            "map": [{"a": 1}, None],
            "code": pa.array(["k", "k"]).dictionary_encode(),
            "took": pa.array([1_500_000, None], pa.duration("us")),
        }
    )
    first, second = encode(readable(rows)).decode().splitlines()
    assert first == (
        '"\\x0061","{""1"",NULL}","{""a\\""b"",""c\\\\d"",""NULL""}","{{""x""},{""y""}}",'
        '"{""a"": 1}","k","1.500000 seconds"'
    )
    assert second == ',"{}",,,,"k",'
