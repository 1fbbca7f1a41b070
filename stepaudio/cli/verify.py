"""The command that knows our speech again: verify."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from stepaudio.cli.rim import new_command, open_engine, source


def add_commands(commands: Any) -> None:
    """What there is to type."""
    verify = new_command(
        commands,
        "verify",
        _verify,
        "say whether this installation spoke what is in a file",
        "stepaudio verify call.mp3",
        "curl -s https://example.com/a.wav | stepaudio verify - --json",
    )
    verify.description = """\
Say whether this installation spoke what is in a file: whether its watermark is there.

All speech that is made here carries a mark that cannot be heard, made with a key that
only this installation has (tts.watermark_key). It survives telephones (mu-law, 8 kHz),
MP3 at 64 kbit/s, Opus, resampling, clipping, cutting, noise 10 dB below the speech, and
a speed changed by up to 1 %. The exit status is 0 where it is found, 1 where it is not.

A yes can be relied on: it is said where the chance is at most 1 in 10,000 that a file
which was not made here looks as much like one, and how small the chance is, is printed.
A no proves little. The mark is not proof against somebody who wants to take it out (or,
with minutes of this installation's speech, to forge it); less than 3 s of speech may be
too little; louder noise, Opus below 12 kbit/s, an echoing room or a larger change of
speed may hide it. Speech of other installations, or of before a lost key, is not known
here."""
    verify.add_argument("file", metavar="FILE", help="audio; - reads standard input")
    verify.add_argument("--json", action="store_true", help="print JSON")


def _verify(options: argparse.Namespace) -> int:
    with open_engine(options) as engine:
        found = engine.verify(source(options.file))
    made_here = found is not None and found.found
    if options.json:
        row: dict[str, Any] = {"file": options.file, "made_here": made_here}
        if found is not None:
            row |= {"score": round(found.score, 2), "false_alarm": found.false_alarm, "speed": found.speed}
            row["ranges_s"] = found.ranges()
        print(json.dumps(row, indent=2))
    elif found is None:
        print(
            f"{options.file}: cannot tell: there is no key here; nothing was spoken yet, or the key was lost"
        )
    elif not made_here:
        print(f"{options.file}: not recognised: the watermark of this installation was not found in it")
        print(f"  score {found.score:.1f}, where 4.6 is the least for 3 s")
    else:
        where = ", ".join(f"{begin:.1f} to {end:.1f} s" for begin, end in found.ranges())
        speed = "" if found.speed == 1 else f", played at {found.speed:g} times its speed"
        chance = math.ceil(math.log10(max(found.false_alarm, 1e-300)))
        print(f"{options.file}: made here ({where or 'plain only in all of it together'})")
        print(f"  score {found.score:.1f}{speed}; chance of a false alarm: at most 10^{chance}")
    return 0 if made_here else 1
