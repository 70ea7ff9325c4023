"""A verb is defined once: everything else that speaks of it agrees with its class. No server is needed."""

from __future__ import annotations

import dataclasses
import re
import tarfile
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.core import TyperGroup

from shardman import commands
from shardman.cli.app import build
from shardman.client import Client
from shardman.client.generate import TARGET, source
from shardman.commands.arguments import Argument, argument
from shardman.commands.base import Command, Facts, verb
from shardman.commands.registry import COMMANDS, read
from shardman.errors import UserError
from steps.plans import CLUSTER, samples
from upgrade.releases import FOLDER, NAMES

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "commands"
CLI = (ROOT / "docs" / "cli.md").read_text("utf-8")
SQL = files("shardman.sql").joinpath("routines", "30_commands.sql").read_text("utf-8")
#: Options that every command has.
EVERYWHERE = ("--plan", "--no-wait")
DOCS = "\n".join(p.read_text("utf-8") for p in sorted(PAGES.glob("*.md")))
VERBS = pytest.mark.parametrize("each", COMMANDS.values(), ids=lambda c: c.name)
PROGRAM = typer.main.get_command(build())
#: As the pages write types, and as the catalog does.
SQL_TYPES = {"int": "integer", "bool": "boolean", "text": "text"}


@VERBS
def test_one_verb_one_file(each: type[Command]) -> None:
    (folder,) = commands.__path__
    assert (Path(folder) / f"{each.name}.py").exists()
    assert each.__module__ == f"shardman.commands.{each.name}"
    assert each.summary.endswith(".")
    assert all(a.help.endswith(".") for a in each.arguments())


def some(a: Argument) -> st.SearchStrategy[Any]:
    values: st.SearchStrategy[Any] = {
        int: st.integers(),
        bool: st.booleans(),
        str: st.sampled_from(a.choices) if a.choices else st.text(),
    }[a.type]
    return values | st.none() if a.optional else values


@VERBS
@given(data=st.data())
def test_what_is_written_down_is_read_again(each: type[Command], data: st.DataObject) -> None:
    command = each(**{a.name: data.draw(some(a)) for a in each.arguments()})
    options = list(command.options().items())
    assert read(each.name, options) == command
    assert read(each.name, reversed(options)) == command
    # As a worker of version 0.1 submits it.
    assert read(each.name, [(None, value) for _, value in options]) == command


@VERBS
def test_what_has_a_default_may_be_left_out(each: type[Command]) -> None:
    wanted = {a.name: 1 if a.type is int else "x" for a in each.arguments() if a.required}
    wanted |= {a.name: True for a in each.arguments() if a.required and a.type is bool}
    command = each(**wanted)
    needed = [(name, command.options()[name]) for name in wanted]
    assert read(each.name, needed) == command
    assert read(each.name, [(None, value) for _, value in needed]) == command


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("fly_away", [], "does not know the command fly_away"),
        ("move_part", [("part_name", "a_1"), ("dest", "2"), ("colour", "red")], "no colour of"),
        ("move_part", [("part_name", "a_1"), ("dest", "two")], "cannot have two as dest"),
        ("move_part", [("part_name", "a_1"), ("dest", None)], "cannot have null as dest"),
        ("move_part", [("part_name", "a_1")], "move_part needs dest"),
        ("set_sync", [("relation", "a"), ("sync", "maybe")], "cannot have maybe as sync"),
        ("rebalance", [("relation", "a"), ("by", "colour")], "Use number or bytes"),
    ],
)
def test_what_makes_no_sense_is_said(name: str, options: Any, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        read(name, options)


@VERBS
def test_more_values_than_arguments_are_refused(each: type[Command]) -> None:
    last = len(each.arguments()) + 1
    with pytest.raises(UserError, match=f"no argument {last} of {each.name}"):
        read(each.name, [(None, "1")] * last)


@pytest.mark.parametrize("release", NAMES)
@VERBS
def test_later_arguments_stand_behind_those_of_a_release(each: type[Command], release: str) -> None:
    """Its workers submit values without names, and its clients call the function by places."""
    with tarfile.open(FOLDER / f"{release}.tar.xz") as archive:
        file = archive.extractfile("src/shardman/sql/routines/30_commands.sql")
        assert file is not None
        then = file.read().decode()
    if f"function shardman.{each.name}(" not in then:
        return
    shown = [p.split()[:2] for p in re.split(r",\s*", sql_function(each, then)[0])]
    now = [[a.name, a.sql_type] for a in each.arguments()]
    assert now[: len(shown)] == [[name, SQL_TYPES[kind]] for name, kind in shown]
    assert not any(a.required for a in each.arguments()[len(shown) :])


def test_an_undeclared_field_is_refused() -> None:
    with pytest.raises(TypeError, match="not declared"):

        @verb
        class Sloppy(Command):
            name = "sloppy"
            summary = "Does it."
            part: str

    with pytest.raises(TypeError, match="no option can have"):

        @verb
        class Odd(Command):
            name = "odd"
            summary = "Does it."
            parts: list[str] = argument("Several.")


def test_the_client_is_generated() -> None:
    assert TARGET.read_text("utf-8") == source(), "python -m shardman.client.generate"


@VERBS
def test_the_client_has_a_method(each: type[Command]) -> None:
    parameters = list(signature(getattr(Client, each.name)).parameters.values())[1:]
    own = [p for p in parameters if p.name not in ("wait", "timeout")]
    fields = {f.name: f.default for f in dataclasses.fields(each)}  # type: ignore[arg-type]
    assert [p.name for p in own] == list(fields)
    for p in own:
        missing = fields[p.name] is dataclasses.MISSING
        assert (p.default is p.empty) if missing else (p.default == fields[p.name])


def command_of(each: type[Command]) -> Any:
    assert isinstance(PROGRAM, TyperGroup)
    return PROGRAM.commands[each.name.replace("_", "-")]


@VERBS
def test_the_program_has_a_command(each: type[Command]) -> None:
    shown = command_of(each)
    assert shown.help == each.summary
    own = {p.name: p for p in shown.params}
    for a in each.arguments():
        p = own[a.name]
        assert p.required == (a.required and not a.optional)
        assert (p.param_type_name == "argument") == a.positional
        assert a.help in str(vars(p).get("help"))
    assert {"--plan", "--no-wait", "--json", "--timeout"} <= {
        o for p in own.values() for o in p.opts
    }


def usage(each: type[Command]) -> str:
    """How the program is called, as the pages write it."""
    words = ["shardman", each.name.replace("_", "-")]
    for a in each.arguments():
        value = "|".join(a.choices or a.words or ()) or a.name.upper()
        flag = a.off or "--" + ("no-" if a.default is True else "") + a.name.replace("_", "-")
        if a.positional:
            words.append(f"[{value}]" if a.optional else value)
        else:
            words.append(f"[{flag}]" if a.type is bool else f"[{flag} {value}]")
    return " ".join([*words, "[--plan]", "[--no-wait]"])


@VERBS
def test_the_page_shows_how_the_program_is_called(each: type[Command]) -> None:
    assert usage(each) in DOCS.splitlines()


@VERBS
def test_the_page_shows_the_sql_function(each: type[Command]) -> None:
    found = re.search(rf"^shardman\.{each.name}\(([^)]*)\)\s+returns bigint", DOCS, re.MULTILINE)
    assert found, f"no page shows shardman.{each.name}"
    assert_declares(found[1], each)


def assert_declares(arguments: str, each: type[Command]) -> None:
    """That arguments, as SQL declares them, are those of a verb: names, types, defaults."""
    shown = [p.split() for p in re.split(r",\s*", arguments)]
    assert [(p[0], SQL_TYPES[p[1]]) for p in shown] == [
        (a.name, a.sql_type) for a in each.arguments()
    ]
    for p, a in zip(shown, each.arguments(), strict=True):
        default = p[p.index("default") + 1].strip("'") if "default" in p else None
        assert default == (None if a.required else a.encode(a.default) or "null"), a.name


@VERBS
def test_the_overview_names_it(each: type[Command]) -> None:
    names = ", ".join(a.name for a in each.arguments())
    assert f"`{each.name}({names})`" in (PAGES / "README.md").read_text("utf-8")


@VERBS
def test_the_command_line_names_its_options(each: type[Command]) -> None:
    program = each.name.replace("_", "-")
    row = re.search(rf"^\| `{program} ([^|]*)` (?:\(`off`\) )?\|", CLI, re.MULTILINE)
    assert row, f"docs/cli.md has no row of {program}"
    flags = [w.strip("[]") for w in usage(each).split() if w.startswith("[--")]
    assert re.findall(r"--[\w-]+", row[1]) == [f for f in flags if f not in EVERYWHERE]


def sql_function(each: type[Command], script: str = SQL) -> tuple[str, str]:
    """Arguments and body of the verb's function."""
    found = re.search(
        rf"^create or replace function shardman\.{each.name}\(([^)]*)\) returns bigint\n.*?\$\$(.*?)\$\$;",
        script,
        re.MULTILINE | re.DOTALL,
    )
    assert found, f"30_commands.sql has no function shardman.{each.name}"
    return found[1], found[2]


@VERBS
def test_the_sql_function_has_its_arguments(each: type[Command]) -> None:
    assert_declares(sql_function(each)[0], each)


@VERBS
def test_the_sql_function_submits_all_of_them(each: type[Command]) -> None:
    _, body = sql_function(each)
    begin, _, options = body.partition("json_build_object(")
    assert re.search(rf"return shardman\.submit\('{each.name}',\s+$", begin)
    assert re.findall(r"'(\w+)',", options) == [a.name for a in each.arguments()]


def others(a: Argument) -> list[Any]:
    """Values of an argument that might make a difference."""
    values: dict[type[Any], list[Any]] = {
        int: [0, 1, 2, 3, 4],
        bool: [True, False],
        str: list(a.choices) or ["acc_0", "acc_1", "acc", "t", "another"],
    }
    return [*values[a.type], *([None] if a.optional else [])]


def outcome(command: Command, answers: dict[str, Any]) -> object:
    """All that a command decides."""
    try:
        plan: object = command.plan(Facts(CLUSTER, 7, answers))
    except (UserError, KeyError) as refused:
        plan = repr(refused)
    return command.claims(CLUSTER), command.survey(CLUSTER), plan


@pytest.mark.parametrize(
    ("each", "name"), [(c, a.name) for c in COMMANDS.values() for a in c.arguments()]
)
def test_an_argument_makes_a_difference(each: type[Command], name: str) -> None:
    (a,) = (a for a in each.arguments() if a.name == name)
    tried = [(c, answers) for c, answers in samples() if isinstance(c, each)]
    assert any(
        outcome(dataclasses.replace(command, **{name: other}), answers)  # type: ignore[type-var]
        != outcome(command, answers)
        for command, answers in tried
        for other in others(a)
    ), f"{each.name} plans the same whatever {name} is"
