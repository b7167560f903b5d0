"""The command line of the benchmarks."""

from __future__ import annotations

import argparse

from . import check, run, setup
from .cells import CELLS
from .peers import PEERS


def _list() -> None:
    print("Cells:")
    for cell in CELLS.values():
        print(f"  {cell.name:<22} {cell.title} [{cell.unit}]")
    print("\nPeers (NAME for both ends, or CLIENT+SERVER):")
    for peer in PEERS.values():
        ends = " and ".join(sorted(peer.roles))
        print(f"  {peer.name:<22} {ends}{'; ' if peer.note else ''}{peer.note}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    run_parser = commands.add_parser("run", help="measure cells with peers")
    run.add_arguments(run_parser)
    setup_parser = commands.add_parser("setup", help="install the peers into .venv-bench")
    setup_parser.add_argument("--python", help="interpreter to make the environment with")
    check_parser = commands.add_parser("check", help="compare ratios with the expected ranges")
    check.add_arguments(check_parser)
    commands.add_parser("list", help="list cells and peers")
    arguments = parser.parse_args()
    if arguments.what == "setup":
        setup.install(arguments.python)
    elif arguments.what == "list" or arguments.list:
        _list()
    else:
        if arguments.quick:
            arguments.rounds, arguments.seconds = 3, 0.1
        (check if arguments.what == "check" else run).main(arguments)


if __name__ == "__main__":
    main()
