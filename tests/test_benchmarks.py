"""The benchmarks work: a tiny run with our library at both ends, the report, the check."""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .benchmark_helpers import POSSIBLE, REASON, ROOT, run_arguments

if not POSSIBLE:
    pytest.skip(REASON, allow_module_level=True)
else:
    from benchmarks import __main__ as command_line
    from benchmarks import cells, payloads, peers, ratios, results
    from benchmarks import run as run_module
    from benchmarks.processes import memory
    from benchmarks.report.__main__ import write
    from benchmarks.report.aims import aims_table, load
    from benchmarks.report.groups import figure
    from benchmarks.report.svg import chart
    from benchmarks.results import quartiles
    from benchmarks.run import Run
    from benchmarks.setup import build_floor


def peer_outcome(name: str, rounds: list[float], metric: str) -> dict[str, Any]:
    return {
        "client": name,
        "server": name,
        "median": sorted(rounds)[len(rounds) // 2],
        "quartiles": list(quartiles(rounds)),
        "medians": {"client_cpu_us": 1.0, "server_cpu_us": 2.0},
        "rounds": [{metric: value} for value in rounds],
        "starts": [1, 1, 1, 2, 2],
    }


@pytest.fixture
def document() -> dict[str, Any]:
    """A result file as a run makes it."""
    outcome = {
        "title": "Round trip, 32 B",
        "metric": "wall_us",
        "unit": "µs",
        "higher_is_better": False,
        "peers": {
            "fullduplex": peer_outcome("fullduplex", [10.0, 11.0, 10.5, 10.2, 10.4], "wall_us"),
            "websockets": peer_outcome("websockets", [100.0, 120.0, 105, 99, 101], "wall_us"),
            "aiohttp": {"client": "aiohttp", "server": "aiohttp", "error": "<no> answer & more"},
        },
    }
    load = copy.deepcopy(outcome)
    load |= {"metric": "rate", "higher_is_better": True, "title": "Load", "unit": "messages/s"}
    for peer in load["peers"].values():
        for values in peer.get("rounds", []):
            values["rate"] = 1e6 / values.pop("wall_us")
    return {
        "format": 2,
        "environment": {
            "date": "2026-01-01T00:00:00+00:00",
            "command": ["python", "-m", "benchmarks", "run"],
            "cpu": "A processor",
            "cores": 2,
            "memory_gib": 4.0,
            "kernel": "Linux 6",
            "libc": "glibc 2",
            "commit": "abc",
        },
        "method": {"starts": 2, "rounds": 3, "seconds": 0.1},
        "versions": {"fullduplex": {"fullduplex": "1"}, "websockets": {"websockets": "17"}},
        "cells": {"echo-32": outcome, "load-100": load},
    }


# The suite


def test_both_ends_ours(fd: ModuleType, tmp_path: Path) -> None:
    name = "fullduplex-pure" if fd.IMPLEMENTATION == "pure" else "fullduplex"
    build_floor()
    run = Run(
        run_arguments(
            cells="echo-32,receive-100-mixed", peers=f"floor,{name}", json=tmp_path / "out"
        ),
        tmp_path,
    )
    run.lock = tmp_path / "lock"  # a test need not wait for a benchmark
    run.run()
    found = json.loads((tmp_path / "out").read_text())["cells"]
    assert list(found) == ["echo-32", "receive-100-mixed"]
    for cell in found.values():
        assert [(one, outcome.get("error")) for one, outcome in cell["peers"].items()] == [
            ("floor", None),
            (name, None),
        ]
        assert all(outcome["median"] > 0 for outcome in cell["peers"].values())
        assert all(len(outcome["rounds"]) == 4 for outcome in cell["peers"].values())
        assert all(outcome["starts"] == [1, 1, 2, 2] for outcome in cell["peers"].values())


def test_a_peer_that_is_missing_is_left_out_and_named(tmp_path: Path) -> None:
    if importlib.util.find_spec("picows") is not None:
        pytest.skip("picows is installed here")
    run = Run(run_arguments(peers="floor,picows"), tmp_path)
    assert run.document["missing"] == ["picows"]
    assert [one.name for one in run.contenders(cells.CELLS["echo-32"])] == ["floor"]


def test_list() -> None:
    command = [sys.executable, "-m", "benchmarks", "--list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=50)
    for name in [*cells.CELLS, *peers.PEERS]:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize(
    ("words", "method"),
    [([], (3, 3, 0.15)), (["--quick"], (1, 3, 0.1)), (["--starts", "5", "--rounds", "2"], (5, 2))],
)
def test_options_of_the_method(
    words: list[str], method: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(run_module, "main", seen.append)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "run", *words])
    command_line.main()
    found = (seen[0].starts, seen[0].rounds, seen[0].seconds)
    assert found[: len(method)] == method


@pytest.mark.parametrize("option", ["--starts", "--rounds"])
def test_nothing_is_measured_no_times(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "run", option, "0"])
    with pytest.raises(SystemExit):
        command_line.main()
    assert f"argument {option}: 0 is less than 1" in capsys.readouterr().err


def test_memory_of_this_process() -> None:
    found = memory(os.getpid())
    assert found["kib"] > 1000
    assert 0 <= found["stack_kib"] < found["kib"]
    assert found["threads"] >= 1
    assert found["fds"] >= 3


# Cells, peers and payloads


def test_select() -> None:
    assert [cell.name for cell in cells.select("load-10,echo-*")][-1] == "load-10"
    with pytest.raises(ValueError, match="no cell matches 'nothing'"):
        cells.select("echo-32,nothing")


@pytest.mark.parametrize(
    ("spec", "cell", "client", "server"),
    [
        ("websockets", "echo-32", "websockets", "websockets"),
        ("websocket-rs", "echo-32", "websocket-rs", "picows"),
        ("websocket-client+aiohttp", "tls-256", "websocket-client", "aiohttp"),
        ("picows", "receive-100-ascii", "picows", "floor"),
        ("picows", "load-100", "floor", "picows"),
    ],
)
def test_who_plays_which_part(spec: str, cell: str, client: str, server: str) -> None:
    found = peers.for_cell(peers.pair(spec), cells.CELLS[cell])
    assert found is not None
    assert (found.client.name, found.server.name) == (client, server)


@pytest.mark.parametrize(
    ("spec", "cell"),
    [("floor", "tls-32"), ("picows", "deflate-1k"), ("websocket-client", "load-100")],
)
def test_what_a_peer_cannot_do(spec: str, cell: str) -> None:
    assert peers.for_cell(peers.pair(spec), cells.CELLS[cell]) is None


def test_unknown_peer() -> None:
    with pytest.raises(ValueError, match="no peer is called 'nobody'"):
        peers.pair("floor+nobody")


@pytest.mark.parametrize("kind", payloads.KINDS)
@pytest.mark.parametrize("size", [100, 1024, 65536])
def test_payloads_are_as_long_as_said_and_always_the_same(kind: str, size: int) -> None:
    message = payloads.payload(kind, size)
    assert isinstance(message, bytes) == (kind == "binary")
    assert len(payloads.encoded(message)) == size
    assert payloads.payload(kind, size) == message


# The report


def test_report(document: dict[str, Any], tmp_path: Path) -> None:
    written = write(document, tmp_path)
    charts = [path for path in written if path.suffix == ".svg"]
    assert {path.name for path in charts} == {"overview.svg", "round-trips.svg", "load.svg"}
    for path in charts:
        root = ElementTree.fromstring(path.read_text())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.find("{http://www.w3.org/2000/svg}title") is not None
        assert len(root.findall(".//{http://www.w3.org/2000/svg}rect")) >= 2
    page = (tmp_path / "tables.md").read_text()
    assert "| websockets (threading) | 101 |" in page
    assert "9.71 ×" in page
    assert "<no> answer & more" in page
    assert "`python -m benchmarks run`" in page
    method = "3 interleaved rounds of about 0.1 s in each of 2 starts for each peer"
    assert f"- Method: medians of {method}" in page
    assert "3 interleaved rounds in each of 2 starts; whiskers" in charts[0].read_text()


def test_report_shows_how_far_starts_are_apart(document: dict[str, Any], tmp_path: Path) -> None:
    write(document, tmp_path)
    page = (tmp_path / "tables.md").read_text()
    assert "| peer | median | quartiles | to Fullduplex | by start |" in page
    assert "| websockets (threading) | 101 | 100 to 105 | 9.71 × | 9.71 to 10.00 |" in page
    assert "| **Fullduplex** | 10.4 | 10.2 to 10.5 |  |  |" in page
    assert "| aiohttp + uvloop | failed | | | | <no> answer & more |" in page


def without_starts(document: dict[str, Any], path: Path) -> Path:
    """Write a result file as it was before processes were started more than once."""
    document["format"] = 1
    document["method"] = {"rounds": 5, "seconds": 0.1}
    idle = document["cells"]["idle-1000"] = copy.deepcopy(document["cells"]["echo-32"])
    idle["metric"] = "kib"
    for cell in document["cells"].values():
        for peer in cell["peers"].values():
            peer.pop("starts", None)
    path.write_text(json.dumps(document))
    return path


def test_a_result_file_from_before_there_were_starts(
    document: dict[str, Any], tmp_path: Path
) -> None:
    found = results.load(without_starts(document, tmp_path / "result.json"))
    assert found["method"] == {"starts": 1, "rounds": 5, "seconds": 0.1}
    starts = {name: cell["peers"]["fullduplex"]["starts"] for name, cell in found["cells"].items()}
    # Memory has always been measured in new processes.
    assert starts == {"echo-32": [1] * 5, "load-100": [1] * 5, "idle-1000": [1, 2, 3, 4, 5]}
    del found["cells"]["idle-1000"]  # the fixture has none of its values
    write(found, tmp_path)
    page = (tmp_path / "tables.md").read_text()
    assert "| peer | median | quartiles | to Fullduplex |" in page
    assert "medians of 5 interleaved rounds of about 0.1 s for each peer" in page
    assert "tarts" not in page


@pytest.mark.parametrize(
    "command",
    [
        ["benchmarks.report", "RESULT", "--out", "OUT"],
        ["benchmarks", "check", "--result", "RESULT"],
        ["benchmarks", "check", "--result", "RESULT", "--record", "--expected", "OUT"],
    ],
)
def test_a_result_file_of_another_format_is_refused(
    command: list[str], document: dict[str, Any], tmp_path: Path
) -> None:
    result = tmp_path / "result.json"
    result.write_text(json.dumps(document | {"format": 3}))
    names = {"RESULT": str(result), "OUT": str(tmp_path / "out")}
    words = [sys.executable, "-m", *(names.get(word, word) for word in command)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=50)
    assert done.returncode == 1
    assert done.stderr == f"error: {result} has format 3; these benchmarks read 1 and 2\n"
    assert not (tmp_path / "out").exists()


def test_aims_beside_what_was_measured(document: dict[str, Any]) -> None:
    table = aims_table(document, {"echo-32": {"websockets": 0.125, "aiohttp": 0.1}, "tls-256": {}})
    assert "| Round trip, 32 B | websockets (threading) | 0.12 | 0.10 |" in table
    assert table.endswith("| reached |")
    assert table.count("\n") == 2
    assert aims_table(document, {"load-100": {"websockets": 0.05}}).endswith("| **missed** |")
    assert aims_table(document, {"echo-256": {"websockets": 1}}) == ""
    assert "| quartiles | by start | |" in table
    assert "| 0.10 to 0.10 | 0.10 to 0.10 | reached |" in table
    document["method"]["starts"] = 1
    assert "by start" not in aims_table(document, {"echo-32": {"websockets": 0.125}})


def test_committed_aims_are_about_cells_and_peers_that_exist() -> None:
    for cell, wanted in load(ROOT / "benchmarks" / "aims.json").items():
        assert cell in cells.CELLS
        assert set(wanted) <= set(peers.PEERS)


def test_a_long_bar_is_cut_and_says_so(document: dict[str, Any]) -> None:
    cell = document["cells"]["echo-32"]
    assert "<mask" not in chart([cell], "title", "note")
    cell["peers"]["websockets"]["median"] = 10_000.0
    assert "<mask" in chart([cell], "title", "note")


def test_text_in_charts_is_escaped(document: dict[str, Any]) -> None:
    cell = document["cells"]["echo-32"]
    cell["title"] = "a < b & c"
    drawn = chart([cell], "<title>", "note")
    ElementTree.fromstring(drawn)
    assert "a &lt; b &amp; c" in drawn


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.0123, "0.012")],
)
def test_figure(value: float, text: str) -> None:
    assert figure(value) == text


# The check


def test_what_slows_the_machine_for_a_start_is_not_its_luck(document: dict[str, Any]) -> None:
    for cell in ("echo-32", "load-100"):
        outcome = document["cells"][cell]
        before = ratios.ratio(document, cell, "fullduplex", "websockets")
        assert before is not None
        assert before.starts == pytest.approx([0.1, (10.2 / 99 + 10.4 / 101) / 2])
        for name in ("fullduplex", "websockets"):
            for values in outcome["peers"][name]["rounds"][3:]:
                values[outcome["metric"]] *= 2
        after = ratios.ratio(document, cell, "fullduplex", "websockets")
        assert after is not None
        assert after.starts == pytest.approx(before.starts)


def test_ratio_is_of_costs(document: dict[str, Any]) -> None:
    for cell in ("echo-32", "load-100"):
        found = ratios.ratio(document, cell, "fullduplex", "websockets")
        assert found is not None
        assert found.low < 0.1 < found.high < 0.11 or found.median == pytest.approx(0.1, abs=0.01)
    assert ratios.ratio(document, "echo-32", "fullduplex", "aiohttp") is None
    assert ratios.ratio(document, "echo-256", "fullduplex", "websockets") is None


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.05, 0.2, "ok"), (0.01, 0.05, "worse"), (0.5, 1.0, "better")],
)
def test_verdict(document: dict[str, Any], low: float, high: float, verdict: str) -> None:
    expected = ratios.Expectation("echo-32", "fullduplex", "websockets", low, high)
    found = ratios.ratio(document, "echo-32", "fullduplex", "websockets")
    assert expected.verdict(found) == verdict
    assert expected.verdict(None) == "missing"


def test_recorded_ranges_are_met_by_what_they_come_from(
    document: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "expected.json"
    assert ratios.record(document, "fullduplex", ["websockets", "aiohttp"], path) == 2
    for one in ratios.load_expected(path):
        assert one.verdict(ratios.ratio(document, one.cell, one.peer, one.base)) == "ok"


def test_check_fails_on_a_regression(document: dict[str, Any], tmp_path: Path) -> None:
    expected, result = tmp_path / "expected.json", tmp_path / "result.json"
    ratios.record(document, "fullduplex", ["websockets"], expected)
    for values in document["cells"]["echo-32"]["peers"]["fullduplex"]["rounds"]:
        values["wall_us"] *= 2
    result.write_text(json.dumps(document))
    command = [sys.executable, "-m", "benchmarks", "check"]
    command += ["--expected", str(expected), "--result", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=50)
    assert done.returncode == 1
    assert re.search(r"^worse +echo-32 ", done.stdout, re.MULTILINE)
    assert re.search(r"^ok +load-100 ", done.stdout, re.MULTILINE)
    assert "1 of 2 ratios are worse" in done.stderr


def test_committed_expectations_are_about_cells_and_peers_that_exist() -> None:
    path = ROOT / "benchmarks" / "expected.json"
    for one in ratios.load_expected(path):
        assert one.cell in cells.CELLS
        assert {one.peer, one.base} <= set(peers.PEERS)
        assert 0 < one.low < one.high
