"""The commands about the voices there are: list, show, mix, consent, clone, remove."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from stepaudio.cli.rim import new_command, new_group, open_engine, print_rows, progress_bar, source, spinner
from stepaudio.core.errors import ConfigError


def add_commands(commands: Any) -> None:
    """What there is to type."""
    voices = new_group(commands, "voices", "the voices there are")
    listing = new_command(voices, "list", _list, "list the voices", "stepaudio voices list --language zh")
    listing.add_argument("--language", help="only voices that speak it natively: en, zh, ja, …")
    listing.add_argument("--json", action="store_true", help="print JSON")

    showing = new_command(
        voices, "show", _show, "show what is known of a voice", "stepaudio voices show anna"
    )
    showing.add_argument("name", metavar="NAME", help="a voice, or a mix")
    showing.add_argument("--json", action="store_true", help="print JSON")

    mixing = new_command(
        voices,
        "mix",
        _mix,
        "keep a mix of stock voices under a name",
        "stepaudio voices mix duo af_heart*0.6+am_adam*0.4",
        "stepaudio voices mix calm af_heart/am_michael   # timbre of one, speech of the other",
        "stepaudio say --voice af_heart*0.6+am_adam*0.4 Hello   # without keeping it",
    )
    mixing.add_argument("name", metavar="NAME", help="of the new voice")
    mixing.add_argument("expression", metavar="MIX", help="VOICE*SHARE+VOICE*SHARE, or TIMBRE/PROSODY")

    asking = new_command(
        voices,
        "consent",
        _consent,
        "ask for a consent to clone: print what the speaker must read aloud",
        "stepaudio voices consent",
        "stepaudio voices consent --language zh",
    )
    asking.add_argument("--language", default="en", help="en or zh (default: %(default)s)")
    asking.add_argument("--json", action="store_true", help="print JSON")

    cloning = new_command(
        voices,
        "clone",
        _clone,
        "make a voice that resembles a recording's, with the speaker's consent",
        "stepaudio voices consent",
        "stepaudio voices clone anna anna.wav --consent anna-consent.wav",
    )
    cloning.add_argument("name", metavar="NAME", help="of the new voice")
    cloning.add_argument("recording", metavar="FILE", help="10 to 60 s of one person's speech")
    cloning.add_argument(
        "--consent",
        required=True,
        metavar="FILE",
        help="the same person reading what `stepaudio voices consent` printed",
    )
    cloning.add_argument("--json", action="store_true", help="print JSON")

    removing = new_command(
        voices,
        "remove",
        _remove,
        "delete a mixed or cloned voice, with the recording of its consent",
        "stepaudio voices remove anna",
    )
    removing.add_argument("name", metavar="NAME", help="a voice that was kept")


def _list(options: argparse.Namespace) -> None:
    engine = open_engine(options)
    rows = [
        {
            "id": voice.id,
            "language": voice.language,
            "gender": voice.gender,
            "engine": voice.engine,
            "origin": voice.origin,
            "licence": voice.licence,
        }
        for voice in engine.voices()
        if not options.language or voice.language.lower().startswith(_native(options.language))
    ]
    if not rows:
        raise ConfigError(f"no voice speaks {options.language!r} natively; see: stepaudio voices list")
    print_rows(rows, options.json)


def _native(language: str) -> str:
    return "cmn" if language.lower().startswith("zh") else language.lower()


def _show(options: argparse.Namespace) -> None:
    engine = open_engine(options)
    bank = engine.voice_bank
    if bank.stamp(options.name):
        known = bank.show(options.name)
    else:
        voice = engine.speaker.find(options.name)
        known = {
            "name": voice.id,
            "origin": voice.origin,
            "language": voice.language,
            "gender": voice.gender,
            "engine": voice.engine,
            "licence": voice.licence,
        }
    if options.json:
        print(json.dumps(known, ensure_ascii=False, indent=2))
    else:
        for name, value in _lines(known):
            print(f"{name}: {value}")


def _lines(known: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Nested facts one a line; when something was, as a date."""
    lines: list[tuple[str, Any]] = []
    for key, value in known.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            lines += _lines(value, f"{name}.")
        elif key in ("made_s", "given_s"):
            lines.append((name.removesuffix("_s"), time.strftime("%Y-%m-%d %H:%M", time.localtime(value))))
        else:
            lines.append((name, value))
    return lines


def _mix(options: argparse.Namespace) -> None:
    from stepaudio import cloning

    with open_engine(options) as engine, spinner("mixing"):
        kept = cloning.mix(engine, options.name, options.expression, time.time())
    print(f"{kept.voice.id}: {kept.recipe}; speak with it: stepaudio say --voice {kept.voice.id} TEXT")


def _consent(options: argparse.Namespace) -> None:
    from stepaudio import cloning

    request = cloning.ask_consent(open_engine(options).voice_bank, options.language, time.time())
    if options.json:
        print(json.dumps({"language": request.language, "phrase": request.phrase}, ensure_ascii=False))
    else:
        print(
            "Let the speaker read this aloud, the code digit by digit, and record it:\n\n"
            f"  {request.phrase}\n"
        )
        print("It holds for one voice, for a day: stepaudio voices clone NAME FILE --consent FILE")


def _clone(options: argparse.Namespace) -> None:
    from stepaudio import cloning

    with open_engine(options) as engine, progress_bar("searching", unit="steps") as report:
        kept = cloning.clone(
            engine, options.name, source(options.recording), Path(options.consent), time.time(), report
        )
    if options.json:
        print(json.dumps({"name": kept.voice.id, **kept.facts}, ensure_ascii=False, indent=2))
        return
    facts = kept.facts
    print(
        f"{kept.voice.id}: a voice that resembles the recording's: likeness {facts['likeness']:.2f}, where "
        f"{facts['nearest']}, the nearest stock voice, has {facts['stock_likeness']:.2f} and other "
        "recordings of the speaker have 0.9 and more."
    )
    print(f"Speak with it: stepaudio say --voice {kept.voice.id} TEXT")
    print(f"Delete it, and the consent: stepaudio voices remove {kept.voice.id}")


def _remove(options: argparse.Namespace) -> None:
    open_engine(options).voice_bank.remove(options.name)
    print(f"{options.name}: removed, with all that was kept of it")
