"""The commands about voices: say, voices."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from stepaudio.cli.rim import new_command, new_group, open_engine, print_rows, progress_bar
from stepaudio.core.errors import ConfigError


def add_commands(commands: Any) -> None:
    """What there is to type."""
    say = new_command(
        commands,
        "say",
        _say,
        "speak a text",
        'stepaudio say "The train leaves at 9:45." -o train.wav',
        "stepaudio say 今天是2024年5月1号。 --voice zf_xiaoxiao",
        "cat story.txt | stepaudio say - -o - | aplay",
        'stepaudio say --show spoken "It costs $3.50"',
    )
    say.add_argument("text", metavar="TEXT", help="what to say; - reads standard input")
    say.add_argument(
        "-o",
        "--output",
        default="speech.wav",
        metavar="FILE",
        help="wav, flac, ogg or mp3 (default: %(default)s; - is standard output)",
    )
    say.add_argument("--voice", help="a voice (`stepaudio voices list`)")
    say.add_argument("--speed", type=float, help="0.5 to 2.0; 1 is as trained")
    say.add_argument("--language", help="language of the text: en, zh; default: each part by its script")
    say.add_argument(
        "--show",
        choices=("spoken", "phonemes"),
        help="print what would be said, a line for each line, and make no sound",
    )

    voices = new_group(commands, "voices", "the voices there are")
    listing = new_command(
        voices, "list", _voices_list, "list the voices", "stepaudio voices list --language zh"
    )
    listing.add_argument("--language", help="only voices that speak it natively: en, zh, ja, …")
    listing.add_argument("--json", action="store_true", help="print JSON")


# What the commands do


def _say(options: argparse.Namespace) -> int | None:
    from stepaudio.files import WRITES, check_writable, write_audio

    text = sys.stdin.buffer.read().decode("utf-8", "replace") if options.text == "-" else options.text
    engine = open_engine(options, {"tts.voice": options.voice, "tts.speed": options.speed})
    if options.show:
        for line in text.splitlines() or [""]:
            print(engine.show(line, options.show, language=options.language))
        return None
    check_writable(options.output, WRITES)
    seconds = 0.0
    with engine, progress_bar("speaking", unit="s of speech") as report:

        def chunks() -> Iterator[Any]:
            nonlocal seconds
            for speech in engine.say(text, language=options.language):
                seconds = (speech.audio.start + len(speech.audio.samples)) / speech.audio.rate
                report(seconds, None)
                yield speech.audio

        write_audio(options.output, chunks())
    if options.output != "-":
        print(f"{options.output}: {seconds:.1f} s of speech")
    return None


def _voices_list(options: argparse.Namespace) -> None:
    engine = open_engine(options)
    rows = [
        {"id": v.id, "language": v.language, "gender": v.gender, "engine": v.engine, "licence": v.licence}
        for v in engine.voices()
        if not options.language or v.language.lower().startswith(_native(options.language))
    ]
    if not rows:
        raise ConfigError(f"no voice speaks {options.language!r} natively; see: stepaudio voices list")
    print_rows(rows, options.json)


def _native(language: str) -> str:
    return "cmn" if language.lower().startswith("zh") else language.lower()
