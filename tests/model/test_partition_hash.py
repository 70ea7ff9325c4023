"""The hash of a partition without a server; tests/sql/test_partition_of.py compares it with one."""

from __future__ import annotations

from decimal import Decimal

import pytest

from shardman.model.partition_hash import HASHERS, hash_numeric, partition_number


def test_nulls_do_not_count() -> None:
    hashed = HASHERS["bigint"](7)
    assert partition_number([None, hashed], 97) == partition_number([hashed], 97)
    assert partition_number([None], 97) == 0


def test_integers_of_all_sizes_are_alike() -> None:
    assert HASHERS["smallint"](-7) == HASHERS["bigint"](-7)


@pytest.mark.parametrize("same", ["1.0", "1.00", "1", "1E0", "10E-1", "0001"])
def test_equal_numbers_have_one_hash(same: str) -> None:
    assert hash_numeric(Decimal(same)) == hash_numeric(1)


@pytest.mark.parametrize("zero", ["0", "0.00", "-0", "0E5", "0E-9"])
def test_zero_has_no_digits(zero: str) -> None:
    assert hash_numeric(Decimal(zero)) == hash_numeric(0)


def test_blanks_at_the_end_of_char_do_not_count() -> None:
    assert HASHERS["character"]("a  ") == HASHERS["character"]("a") == HASHERS["text"]("a")
