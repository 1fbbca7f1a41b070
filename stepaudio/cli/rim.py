"""What every command shares: flags, configuration, tables, bars."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepaudio import config as configuration

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from stepaudio.engine import Engine


def new_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], help: str, *examples: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="configuration file (default: ./stepaudio.toml)"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="one setting (`stepaudio doctor` lists them)",
    )
    command.set_defaults(run=run)
    return command


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 up")
    return int(text)


def new_group(commands: Any, name: str, help: str) -> Any:
    group = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    return group.add_subparsers(metavar="COMMAND", required=True)


def load(
    options: argparse.Namespace,
    flags: dict[str, Any] | None = None,
    defaults: dict[str, Any] | None = None,
) -> configuration.Loaded:
    given: dict[str, Any] = dict(map(configuration.parse_flag, options.set))
    given |= {name: value for name, value in (flags or {}).items() if value is not None}
    return configuration.load(options.config, os.environ, given, defaults)


def open_engine(
    options: argparse.Namespace,
    flags: dict[str, Any] | None = None,
    defaults: dict[str, Any] | None = None,
) -> Engine:
    from stepaudio.engine import Engine

    return Engine(load(options, flags, defaults).config)


def source(name: str) -> Any:
    return sys.stdin.buffer if name == "-" else Path(name)


def complain(error: Exception | str) -> None:
    print(f"stepaudio: {error}", file=sys.stderr)


def console(stderr: bool = False) -> Console:
    from rich.console import Console

    # A pipe has no width: keep rows whole there rather than folding them at 80.
    width = None if (sys.stderr if stderr else sys.stdout).isatty() else 200
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def print_rich(what: RenderableType) -> None:
    console().print(what)


def print_rows(rows: Sequence[dict[str, str]], as_json: bool = False) -> None:
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    from rich import box
    from rich.table import Table

    table = Table(*(rows[0] if rows else ()), box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*map(str, row.values()))
    print_rich(table)


@contextlib.contextmanager
def spinner(text: str) -> Iterator[None]:
    terminal = console(stderr=True)
    with terminal.status(text) if terminal.is_terminal else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def progress_bar(text: str, unit: str) -> Iterator[Callable[[float, float | None], None]]:
    """A bar on a terminal's standard error, which is gone at the end: report(done, total or None)."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    terminal = console(stderr=True)
    columns = (TextColumn(text), BarColumn(), TextColumn("{task.fields[done]}"), TimeElapsedColumn())
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bars:
        task = bars.add_task(text, total=None, done="")

        def report(done: float, total: float | None) -> None:
            shown = f"{done:.0f} {unit}" if total is None else f"{done:.0f} of {total:.0f} {unit}"
            bars.update(task, completed=done, total=total, done=shown)

        yield report
