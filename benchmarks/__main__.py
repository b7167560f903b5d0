"""The command line of the benchmarks; without a command it is that of ``run``."""

from __future__ import annotations

import argparse
import sys

from . import check, everything, run, setup
from .cells import CELLS
from .peers import PEERS

COMMANDS = ("run", "check", "setup", "all", "list")


def _list() -> None:
    print("Cells:")
    for cell in CELLS.values():
        print(f"  {cell.name:<22} {cell.title} [{cell.unit}]")
    print("\nPeers (NAME for both ends, or CLIENT+SERVER):")
    for peer in PEERS.values():
        ends = " and ".join(sorted(peer.roles))
        print(f"  {peer.name:<22} {ends}{'; ' if peer.note else ''}{peer.note}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    run.add_arguments(commands.add_parser("run", help="measure cells with peers (the default)"))
    check.add_arguments(commands.add_parser("check", help="compare ratios with expected ranges"))
    everything.add_arguments(commands.add_parser("all", help="install, measure all, draw charts"))
    setup_parser = commands.add_parser("setup", help="install the peers into .venv-bench")
    setup_parser.add_argument("--python", help="interpreter to make the environment with")
    commands.add_parser("list", help="list cells and peers")
    return parser


def main() -> None:
    words = sys.argv[1:]
    if words[:1] not in ([name] for name in (*COMMANDS, "-h", "--help")):
        words = ["run", *words]
    arguments = _parser().parse_args(words)
    if arguments.what == "setup":
        setup.install(arguments.python)
    elif arguments.what == "all":
        everything.main(arguments)
    elif arguments.what == "list" or arguments.list:
        _list()
    else:
        if arguments.quick:
            arguments.starts, arguments.rounds, arguments.seconds = 1, 3, 0.1
        (check if arguments.what == "check" else run).main(arguments)


if __name__ == "__main__":
    main()
