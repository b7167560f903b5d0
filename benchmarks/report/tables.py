"""Markdown tables from a result file."""

from __future__ import annotations

from typing import Any

from .. import ratios
from ..paths import AIMS
from .aims import aims_table, load
from .groups import GROUPS, figure, in_group, label, ranked, several_starts, spread

_EXPLAINED = """\
*To Fullduplex*: what the peer costs as a multiple of what Fullduplex costs. Above 1, Fullduplex is
ahead; below 1, the peer is."""

_STARTS_EXPLAINED = """\
*By start*: the same of each single start of the processes, the lowest and the highest; peers are
compared round by round there. Medians and quartiles are those of all rounds of all starts."""

_AIMS_EXPLAINED = """\
What Fullduplex costs as a multiple of what the other costs, by the figure that the cell is about;
the aims were set before there was any code. Medians and quartiles of the ratios of each round."""

_AIMS_STARTS_EXPLAINED = "*By start*: the lowest and the highest median of a single start."


def _reference(cell: dict[str, Any]) -> float | None:
    peer = cell["peers"].get("fullduplex", {})
    value = peer.get("median")
    return float(value) if value else None


def _cost(cell: dict[str, Any], value: float, reference: float) -> float:
    """How many times Fullduplex's cost this is; above 1 we win, in every cell."""
    return reference / value if cell["higher_is_better"] else value / reference


def _extra(cell: dict[str, Any], peer: dict[str, Any]) -> str:
    medians = peer["medians"]
    if "threads" in medians:
        return (
            f"{figure(medians['kib_beside_stack'])} KiB beside stacks, "
            f"{medians['threads']:.2f} threads, {medians['fds']:.2f} fds"
        )
    client, server = medians["client_cpu_us"], medians["server_cpu_us"]
    return f"{figure(client)} + {figure(server)} µs"


def in_starts(document: dict[str, Any]) -> str:
    """In how many starts the rounds were made, in words; nothing for a single one."""
    return f" in each of {document['method']['starts']} starts" if several_starts(document) else ""


def _by_start(document: dict[str, Any], cell: str, name: str) -> str:
    found = ratios.ratio(document, cell, name, "fullduplex")
    return spread(found.starts) if found is not None and name != "fullduplex" else ""


def cell_table(document: dict[str, Any], cell_name: str) -> str:
    """One cell: peers, best first; those that failed, last."""
    cell = document["cells"][cell_name]
    starts = several_starts(document)
    reference = _reference(cell)
    idle = cell["metric"] == "kib"
    heads = ["peer", "median", "quartiles", "to Fullduplex"]
    heads.append("also, a connection" if idle else "CPU time, client + server")
    if starts:
        heads.insert(4, "by start")
    lines = [
        f"**{cell['title']}** ({cell['unit']})",
        "",
        f"| {' | '.join(heads)} |",
        "|---|" + "---:|" * (len(heads) - 1),
    ]
    for name, peer in ranked(cell):
        low, high = peer["quartiles"]
        times = f"{_cost(cell, peer['median'], reference):.2f} ×" if reference else ""
        shown = label(peer, name)
        if name == "fullduplex":
            shown, times = f"**{shown}**", ""
        row = [shown, figure(peer["median"]), f"{figure(low)} to {figure(high)}", times]
        row.append(_extra(cell, peer))
        if starts:
            row.insert(4, _by_start(document, cell_name, name))
        lines.append(f"| {' | '.join(row)} |")
    for name, peer in cell["peers"].items():
        if "error" in peer:
            error = peer["error"].replace("|", "/")
            empty = "| " * (len(heads) - 3)
            lines.append(f"| {label(peer, name)} | failed {empty}| {error} |")
    return "\n".join(lines)


def provenance(document: dict[str, Any]) -> str:
    """Where the figures come from."""
    environment, method = document["environment"], document["method"]
    versions = "; ".join(
        f"{name}: " + ", ".join(f"{part} {version}" for part, version in parts.items())
        for name, parts in document["versions"].items()
    )
    kernel = environment["kernel"]
    if "congestion_control" in environment:
        kernel += f", TCP {environment['congestion_control']}"
    machine = f"{environment['cpu']}, {environment['cores']} cores, {environment['memory_gib']} GiB"
    method_text = f"medians of {method['rounds']} interleaved rounds of about {method['seconds']} s"
    lines = [
        f"- Command: `{' '.join(environment['command'])}`",
        f"- Machine: {machine}; {kernel}; {environment['libc']}",
        f"- Date: {environment['date']}; source: {environment['commit']}",
        f"- Method: {method_text}{in_starts(document)} for each peer",
        f"- Versions: {versions}",
    ]
    return "\n".join(lines)


def tables(document: dict[str, Any]) -> str:
    """The whole result file as a page."""
    parts = ["<!-- Made by `python -m benchmarks.report`; edits will be lost. -->"]
    if aims := aims_table(document, load(AIMS)):
        starts = [_AIMS_STARTS_EXPLAINED] if several_starts(document) else []
        parts += ["## Aims", _AIMS_EXPLAINED, *starts, aims]
    parts.append("## All figures")
    parts.append(_EXPLAINED)
    if several_starts(document):
        parts.append(_STARTS_EXPLAINED)
    for _, heading, pattern in GROUPS:
        names = in_group(document, pattern)
        if names:
            parts.append(f"### {heading}")
            parts.extend(cell_table(document, name) for name in names)
    parts.extend(["## How these figures were made", provenance(document)])
    return "\n\n".join(parts) + "\n"
