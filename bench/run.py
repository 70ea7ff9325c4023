"""What it costs on this machine: ``make bench``.

Every table compares within one run, alternating, because machines are shared and noisy: read the ratios,
not the milliseconds. ``--quick`` takes a minute or two, the whole half an hour.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from measure_background import background
from measure_commands import commands
from measure_conversion import conversion
from measure_ddl import ddl
from measure_failover import failover
from measure_idle import idle
from measure_metadata import metadata
from measure_moves import moves
from measure_queries import load_speed, queries
from measure_replicas import replicas

SECTIONS: dict[str, Callable[[bool], Table]] = {
    "queries": queries,
    "load": load_speed,
    "conversion": conversion,
    "moves": moves,
    "ddl": ddl,
    "commands": commands,
    "metadata": metadata,
    "replicas": replicas,
    "background": background,
    "failover": failover,
    "idle": idle,
}


def main() -> None:
    """Prints the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer")
    args = parser.parse_args()
    if unknown := set(args.sections) - SECTIONS.keys():
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    console = Console()
    for name in args.sections or SECTIONS:
        console.print(SECTIONS[name](args.quick))


if __name__ == "__main__":
    main()
