"""Real servers, with nothing but required settings: what the doctor finds, that its statements mend it,
and that a report has no secret."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from shardman.cli.main import main
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.plugin import ClusterFactory

SECRET_ROW = "Zebra'\"(Crossing)7"


@pytest.fixture(scope="module")
def servers(module_cluster_factory: ClusterFactory) -> Cluster:
    return module_cluster_factory(workers=2, bare=True, stock=True)


def doctor(capsys: Any, *words: str) -> tuple[int, dict[str, Any]]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json", *words])
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


def dsns(servers: Cluster) -> list[str]:
    return [servers.dsn(node) for node in (0, 1, 2)]


def test_before_there_is_a_cluster(servers: Cluster, capsys: Any) -> None:
    servers.sql(1, "alter database postgres set timezone = 'Asia/Tokyo'")
    servers.sql(2, "create extension hstore")
    code, said = doctor(capsys, *dsns(servers))
    assert code == 3
    found = {f["what"].split(" ")[0] for f in said["findings"]}
    assert {"jit", "fsync", "wal_retrieve_retry_interval", "TimeZone", "lacks"} <= found
    assert len(said["ways"]) == 6
    assert all(way["latency"] is not None for way in said["ways"])
    # What was made to try the ways is gone.
    for node in (0, 1, 2):
        assert servers.value(node, "select count(*) from pg_foreign_server") == 0
        assert not servers.value(
            node, "select exists (select from pg_extension where extname = 'postgres_fdw')"
        )
    assert servers.password not in json.dumps(said) + servers.logs(1000)


def test_the_statements_mend_it(servers: Cluster, capsys: Any) -> None:
    words = [*dsns(servers), "--nodes", "6", "--partitions", "256", "--sessions", "150"]
    _, said = doctor(capsys, *words)
    numbers = {s["name"]: n for n, s in enumerate(said["servers"])}
    for finding in said["findings"]:
        if finding["subject"] in numbers:
            for statement in filter(None, finding["mend"].split("; ")):
                if "sync_roles" not in statement:
                    servers.sql(numbers[finding["subject"]], statement.encode())  # type: ignore[arg-type]
    for node in (0, 1, 2):
        servers.stop_node(node)
        servers.start_node(node)
    code, said = doctor(capsys, *words)
    assert (code, said["findings"]) == (0, [])
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *words])
    assert not ended.value.code
    assert "Nothing is wrong." in capsys.readouterr().out


def test_ways_that_are_shut(servers: Cluster, capsys: Any, monkeypatch: Any) -> None:
    # From here the address is known by the environment, from the other servers it is not.
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    away = make_conninfo(servers.dsn(1), host="db1.invalid")
    away = make_conninfo(away, password=servers.password, passfile="")
    code, said = doctor(capsys, servers.dsn(0), away)
    assert code == 3
    (found,) = [f for f in said["findings"] if "cannot reach" in f["what"]]
    assert "db1.invalid" in found["subject"] + found["what"]
    assert "pg_hba.conf" in found["hint"]
    assert servers.password not in json.dumps(said)


def test_a_server_that_is_down_and_one_that_lacks_rights(servers: Cluster, capsys: Any) -> None:
    servers.sql(0, "create role weak login password 'weakpw'")
    weak = make_conninfo(servers.dsn(0), user="weak", password="weakpw")
    gone = make_conninfo(servers.dsn(0), port="1")
    code, said = doctor(capsys, weak, gone)
    assert code == 3
    whats = " ".join(f["what"] for f in said["findings"])
    assert "refused" in whats
    assert "the role weak" in whats
    servers.sql(0, "drop role weak")


def test_without_a_server(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("SHARDMAN_DSN", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 2
    assert "name a server" in capsys.readouterr().err


@pytest.fixture(scope="module")
def members(servers: Cluster) -> Cluster:
    servers.local.init()
    servers.local.start_lord()
    for node in (1, 2):
        added = servers.cmd("select shardman.add_node(%s)", (servers.dsn(node),))
        assert added.status == "success", added
    servers.sql(1, "create table acc (id int primary key, note text)")
    servers.sql(1, "insert into acc select g, %s from generate_series(1, 40) g", (SECRET_ROW,))
    made = servers.cmd("select shardman.create_hash_partitions(1, 'acc', 'id', 4)")
    assert made.status == "success", made
    return servers


def test_a_cluster_is_named_by_any_of_its_nodes(members: Cluster, capsys: Any) -> None:
    code, said = doctor(capsys, members.dsn(2))
    assert (code, said["findings"]) == (0, [])
    assert [s["node"] for s in said["servers"]] == [0, 1, 2]
    # Nothing is left, and nobody has taken what was made for a change of the cluster's.
    assert check(members.lord_dsn, patience=10) == []


def test_who_only_looks_is_told_what_was_not_tried(members: Cluster, capsys: Any) -> None:
    for node in (0, 1, 2):
        members.sql(node, "create role looker login password 'lookpw' in role shardman_viewer")
    looker = make_conninfo(members.dsn(0), user="looker", password="lookpw")
    code, said = doctor(capsys, looker)
    assert code == 0
    assert {f["level"] for f in said["findings"]} == {"note"}
    assert "was not tried" in said["findings"][0]["what"]


def test_a_report_has_no_secret(members: Cluster, capsys: Any, tmp_path: Path) -> None:
    # A command that fails with a row in its error.
    with members.connect(1) as conn:
        conn.execute("create table bad (id int, note text)")
        conn.execute("insert into bad values (null, %s)", (SECRET_ROW,))
    for expression in ("(note::int)", "abs(id) + 4242424 * nope('Zebra')"):
        failed = members.cmd(
            "select shardman.create_hash_partitions(1, 'bad', %s, 2)", (expression,)
        )
        assert (failed.status, "Zebra" in str(failed.error)) == ("failed", True), failed
    given = make_conninfo(members.dsn(1), password=members.password, passfile="")
    file = tmp_path / "report.tar.gz"
    with pytest.raises(SystemExit) as ended:
        main(["report", "--dsn", given, "--output", str(file)])
    assert not ended.value.code, capsys.readouterr().err
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as archive:
        texts = {m.name: archive.extractfile(m).read().decode() for m in archive}  # type: ignore[union-attr]
    everything = "\n".join(texts.values())
    assert members.password not in everything
    assert not re.search("Zebra|Crossing|4242424", everything)
    road = members.value(0, "select secret from shardman.road_secret")
    assert str(road) not in everything
    documents = {Path(n).stem: json.loads(t) for n, t in texts.items() if n.endswith(".json")}
    assert {
        "about",
        "status",
        "check",
        "doctor",
        "commands",
        "steps",
        "settings",
    } == documents.keys()
    assert [c["cmd_type"] for c in documents["commands"]][:2] == ["create_hash_partitions"] * 2
    assert documents["commands"][0]["error"]
    assert documents["settings"]["1"]["wal_level"] == "logical"
    # It is not written over.
    with pytest.raises(SystemExit) as again:
        main(["report", "--dsn", given, "--output", str(file)])
    assert again.value.code == 1
    assert "cannot use" in capsys.readouterr().err


def test_no_report_of_no_cluster(members: Cluster, capsys: Any, tmp_path: Path) -> None:
    with psycopg.connect(members.dsn(0), autocommit=True) as conn:
        conn.execute("create database other")
    file = tmp_path / "report.tar.gz"
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "report",
                "--dsn",
                make_conninfo(members.dsn(0), dbname="other"),
                "--output",
                str(file),
            ]
        )
    assert ended.value.code == 1
    assert "not part of a cluster" in capsys.readouterr().err
    assert not file.exists()
