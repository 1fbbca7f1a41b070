"""The command that measures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from stepaudio.cli.rim import load, new_command, new_group, positive, print_rich, progress_bar
from stepaudio.core.errors import ConfigError


def add_commands(commands: Any) -> None:
    """What there is to type."""
    bench = new_group(commands, "bench", "measure this machine, beside the stock programs")
    for name, help in (
        ("turn", "from the end of a spoken question to the first audio of the answer"),
        ("asr", "recognition: speed and errors beside stock faster-whisper"),
        ("tts", "voices: speed beside the stock model, and own voice heard by own ears"),
        ("voice", "voices: whether they do what they are asked, from speed to singing, to listen to"),
        ("llm", "language model: right answers, tokens a second, first token"),
        ("tokenizer", "speech as codes: speed with random weights of the public size"),
        ("vocoder", "Step's voice in chunks: error and joins by look-ahead, with random weights"),
        ("window", "Step-1 in less memory than its weights take: memory and speed, beside Accelerate"),
        ("sessions", "whole talks over the socket: latency, interruptions, how many at once"),
    ):
        command = new_command(bench, name, _bench, help, f"stepaudio bench {name} --json > {name}.json")
        command.set_defaults(bench=name)
        command.add_argument(
            "--data", type=Path, metavar="DIR", help="folder of test data (default: ../shared/data)"
        )
        if name == "voice":
            command.add_argument(
                "--limit",
                type=_limits,
                metavar="N|GROUP=N,…",
                help="at most N sentences (songs, voices) of each kind, in all groups or in some",
            )
        else:
            command.add_argument("--limit", type=positive, metavar="N", help="at most N samples of each kind")
        command.add_argument("--json", action="store_true", help="print JSON")
        if name == "sessions":
            command.add_argument(
                "--only",
                metavar="PART,…",
                help="turns, interruptions, load, idle, hour, overlap (default: all, about an hour)",
            )
            command.add_argument("--url", help="a running server (default: one of its own)")
            command.add_argument("--key", help="key of the server")
        if name == "voice":
            command.add_argument("--only", metavar="GROUP,…", help="identity, streaming, speed, pitch, …")
            command.add_argument(
                "--report", type=Path, metavar="FILE.html", help="a page with every case to listen to"
            )
        if name == "window":
            command.add_argument(
                "--sizes", metavar="NAME=N,…", help="layers, hidden, inner, heads, groups, vocabulary"
            )
            command.add_argument(
                "--ceilings", metavar="SHARE,…", help="shares of the weights (default: 0.25,0.5)"
            )


def _limits(text: str) -> int | dict[str, int]:
    """A number for all groups, or a number for each of some."""
    if "=" not in text:
        return positive(text)
    pairs = [pair.partition("=") for pair in text.split(",")]
    return {name: positive(number) for name, _, number in pairs}


# What the command does


def _bench(options: argparse.Namespace) -> None:
    import importlib

    module = importlib.import_module(f"stepaudio.bench.{options.bench}")
    loaded, more = load(options), {}
    if options.bench == "sessions":
        more = {"url": options.url, "key": options.key}
        more |= {"only": options.only.split(",")} if options.only else {}
    if options.bench == "voice":
        more = {"only": options.only.split(",") if options.only else (), "report": options.report}
    if options.bench == "window":
        more = module.read(options.sizes, options.ceilings)
    data = Path() if options.bench == "window" else _data(options.data)
    with progress_bar(f"bench {options.bench}", unit="") as report:
        result = module.run(loaded.config, data, limit=options.limit, on_progress=report, **more)
    if options.json:
        print(json.dumps(result, ensure_ascii=False, indent=2))
    else:
        print_rich(module.render(result))


def _data(folder: Path | None) -> Path:
    folder = folder or Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (folder / "MANIFEST.jsonl").is_file():
        raise ConfigError(f"no test data in {folder}: name a folder that holds a MANIFEST.jsonl with --data")
    return folder
