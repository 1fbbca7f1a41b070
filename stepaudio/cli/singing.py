"""The command that sings and raps: sing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepaudio.cli.rim import new_command, open_engine, print_rows, progress_bar
from stepaudio.core.errors import ConfigError, ScoreError

_SCORES = frozenset((".mid", ".midi", ".kar", ".mxl", ".musicxml", ".xml", ".abc"))


def add_commands(commands: Any) -> None:
    """What there is to type."""
    sing = new_command(
        commands,
        "sing",
        _sing,
        "sing a score, or rap a text",
        "stepaudio sing song.mxl -o song.wav",
        "stepaudio sing carol.mid --key G --accompany chords -o carol.mp3",
        "stepaudio sing hymn.abc --verse 2 --tempo 80",
        "stepaudio sing song.musicxml --hum --transpose -5",
        "printf 'tempo 90\\nC4 1 Hel-\\nE4 1 lo\\nG4 2 world\\n' | stepaudio sing - -o hello.wav",
        "stepaudio sing --rap verse.txt --tempo 95 --accompany beat -o rap.wav",
    )
    sing.add_argument(
        "score",
        metavar="SCORE",
        help="MusicXML (.mxl, .musicxml), MIDI with lyrics, ABC, UltraStar, or lines of 'note beats "
        "syllable' (further syllables: further verses); with --rap a text, a line a bar; - is standard input",
    )
    sing.add_argument(
        "-o",
        "--output",
        default="song.wav",
        metavar="FILE",
        help="wav, flac, ogg, opus or mp3 (default: %(default)s; - is standard output)",
    )
    sing.add_argument(
        "--voice", help="a voice (`stepaudio voices list`); default: hibari, zf_xiaoxiao in Mandarin"
    )
    sing.add_argument("--language", choices=("en", "zh"), help="of the words; default: by what is written")
    sing.add_argument("--part", help="name or number of the part; default: the one with most words")
    sing.add_argument("--verse", default="all", help="which verses: 2, or 1,3, or all (default)")
    key = sing.add_mutually_exclusive_group()
    key.add_argument("--key", help="sing it in this key: G, Bb, Am; default: one that suits the voice")
    key.add_argument("--transpose", type=int, metavar="N", help="move it by N semitones, 0: as written")
    sing.add_argument(
        "--tempo", type=float, metavar="BPM", help="beats a minute; default: as written; rap 92"
    )
    sing.add_argument("--hum", action="store_true", help="without words")
    sing.add_argument("--rap", action="store_true", help="SCORE is a text; say it on a beat")
    sing.add_argument(
        "--accompany",
        choices=("click", "chords", "beat"),
        help="what sounds beside the voice; default: nothing",
    )
    sing.add_argument("--show", action="store_true", help="print what is in the score, and make no sound")


def _sing(options: argparse.Namespace) -> None:
    from stepaudio.files import WRITES, check_writable, write_audio

    if options.rap:
        _check_rap(options)
    if options.show:
        _show(options)
        return
    check_writable(options.output, WRITES)
    engine = open_engine(options)
    pieces = _rapped(engine, options) if options.rap else _sung(engine, options)
    seconds = 0.0
    with engine, progress_bar("rapping" if options.rap else "singing", unit="s") as report:

        def chunks() -> Iterator[Any]:
            nonlocal seconds
            for speech in pieces:
                seconds = (speech.audio.start + len(speech.audio.samples)) / speech.audio.rate
                report(seconds, None)
                yield speech.audio

        write_audio(options.output, chunks())
    if options.output != "-":
        print(f"{options.output}: {seconds:.1f} s of {'rap' if options.rap else 'song'}")


def _sung(engine: Any, options: argparse.Namespace) -> Iterator[Any]:
    from stepaudio.tts.songs import Wish

    wish = Wish(
        part=options.part,
        verses=_verses(options.verse),
        key=options.key,
        transpose=options.transpose,
        tempo=options.tempo,
        hum=options.hum,
        language=options.language,
        accompany=options.accompany or "none",
    )
    return engine.sing(options.score, voice=options.voice, wish=wish)


def _check_rap(options: argparse.Namespace) -> None:
    if options.accompany == "chords":
        raise ConfigError("a rap has no chords; take --accompany beat")
    if Path(options.score).suffix.lower() in _SCORES:
        raise ConfigError(f"{options.score} is a score: sing it (without --rap); a rap is made of a text")
    if options.verse != "all":
        raise ConfigError("--verse is for scores; a rap is all of its text: leave it out")
    for name in ("key", "transpose", "part", "hum", "show"):
        given = getattr(options, name)
        if given is not None and given is not False:  # --transpose 0 is given
            raise ConfigError(f"--{name} is for scores; a rap is spoken: leave it out")


def _rapped(engine: Any, options: argparse.Namespace) -> Iterator[Any]:
    return engine.rap(
        _read(options.score),
        voice=options.voice,
        bpm=options.tempo,
        language=options.language,
        beat=options.accompany is not None,
    )


def _read(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise ScoreError(f"{name}: the text cannot be read: {error.strerror or error}") from error
    return data.decode("utf-8", "replace")


def _verses(written: str) -> tuple[int, ...]:
    if written == "all":
        return ()
    numbers = written.split(",")
    if not all(number.strip().isdecimal() and int(number) > 0 for number in numbers):
        raise ConfigError(f"--verse {written}: write a number, several as in 1,3, or all")
    return tuple(int(number) for number in numbers)


def _show(options: argparse.Namespace) -> None:
    from stepaudio.engine import read_score
    from stepaudio.tts.scores.score import name_of

    score = read_score(options.score)
    ranges = [(min(n.pitch for n in part.notes), max(n.pitch for n in part.notes)) for part in score.parts]
    rows = [
        {
            "part": str(number),
            "name": part.name,
            "notes": str(len(part.notes)),
            "syllables": str(part.syllables),
            "verses": str(part.verses),
            "range": f"{name_of(low)} to {name_of(high)}",
            "seconds": f"{score.seconds(part.notes[-1].end):.0f}",
            "tempo": f"{score.tempi[0][1]:.0f}",
        }
        for number, (part, (low, high)) in enumerate(zip(score.parts, ranges, strict=True), 1)
    ]
    print_rows(rows)
