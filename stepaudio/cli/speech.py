"""The command that speaks: say."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepaudio.cli.rim import complain, new_command, open_engine, positive, progress_bar
from stepaudio.core.errors import ConfigError

if TYPE_CHECKING:
    from stepaudio.batch import Report
    from stepaudio.core.audio import AudioChunk
    from stepaudio.core.clauses import Clause, Mark
    from stepaudio.core.style import SpeechStyle
    from stepaudio.documents import Kind
    from stepaudio.engine import Engine
    from stepaudio.tts.base import Speech

FORMATS = ("wav", "flac", "ogg", "opus", "mp3", "m4a", "m4b")
"""Those of ``files.WRITES``, which would take the help of every command longer to import."""


def add_commands(commands: Any) -> None:
    """What there is to type."""
    say = new_command(
        commands,
        "say",
        _say,
        "speak a text, or read a file aloud",
        'stepaudio say "The train leaves at 9:45." -o train.wav',
        "stepaudio say 今天是2024年5月1号。 --voice zf_xiaoxiao",
        'stepaudio say "Nobody must hear us." --whisper --emotion fearful',
        "cat story.txt | stepaudio say - -o - | aplay",
        "stepaudio say -f book.epub -o book.m4b          an audiobook with chapters",
        "stepaudio say -f talk.srt -o talk.wav           speech at the times of subtitles",
        "stepaudio say -f jobs.jsonl -o folder --captions srt,json",
        'stepaudio say --show spoken "It costs $3.50"',
        'stepaudio say --show tags "(happy 2) Hello! [sigh] [strong]You[/strong] here? （四川话）你好。"',
    )
    say.add_argument("text", metavar="TEXT", nargs="?", help="what to say; - reads standard input")
    say.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        help="read this aloud: text, Markdown, EPUB, subtitles (srt, vtt), or JSON lines, each with text and "
        "perhaps voice, language, style, file; what was done before a stop is not done again",
    )
    say.add_argument(
        "--type",
        choices=("text", "markdown", "epub", "subtitles", "jobs"),
        help="what FILE holds; default: by the ending of its name",
    )
    say.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="wav, flac, ogg, opus, mp3, m4b; of JSON lines, or with --split, a folder (default: speech.wav, "
        "or called as the file that is read; - is standard output)",
    )
    say.add_argument("--voice", help="a voice (`stepaudio voices list`)")
    say.add_argument("--language", help="language of the text: en, zh; default: each part by its script")
    say.add_argument("--speed", type=float, help="0.5 to 2.0; 1 is as trained")
    say.add_argument("--pitch", type=float, metavar="SEMITONES", help="-7 to 7")
    say.add_argument("--volume", type=float, metavar="DB", help="-24 to 12")
    say.add_argument("--emotion", help="happy, sad, angry, calm, … (高兴, …)")
    say.add_argument("--intensity", type=int, metavar="N", help="of the emotion: 1 to 3")
    say.add_argument("--dialect", help="en-GB, cmn-sichuan, yue, … (四川话, …)")
    say.add_argument(
        "--experimental",
        action="store_true",
        default=None,
        help="allow dialects that are hardly understood yet: yue",
    )
    say.add_argument(
        "--whisper", dest="mode", action="store_const", const="whisper", help="no voice, only breath"
    )
    say.add_argument(
        "--captions", type=_captions, default=(), metavar="KIND,…", help="beside the audio: srt, vtt, json"
    )
    say.add_argument("--split", action="store_true", help="a file a chapter, and a playlist, in a folder")
    say.add_argument(
        "--format", choices=FORMATS, help="of files without a name in a folder (default: mp3; of lines wav)"
    )
    say.add_argument("--jobs", type=positive, metavar="N", help="threads (default: one a processor)")
    say.add_argument(
        "--ssml", action="store_true", default=None, help="the text is SSML; it is if it begins with <speak>"
    )
    say.add_argument(
        "--unknown-tags",
        choices=("speak", "drop", "report"),
        help="what becomes of brackets that look like tags, such as (happy), and are none (default: speak)",
    )
    say.add_argument(
        "--plan", metavar="FILE", help="also write down how it is said, phoneme by phoneme (json)"
    )
    say.add_argument("--from-plan", metavar="FILE", help="speak a plan that was written, and perhaps changed")
    say.add_argument(
        "--show",
        choices=("spoken", "phonemes", "tags"),
        help="print what would be said, a line for each line, or what tags ask for, and make no sound",
    )


# What the commands do


def _captions(text: str) -> tuple[str, ...]:
    from stepaudio.batch import CAPTIONS

    kinds = tuple(dict.fromkeys(text.replace(",", " ").split()))
    if not kinds or set(kinds) - set(CAPTIONS):
        raise argparse.ArgumentTypeError(f"{text!r}: name one or more of {', '.join(CAPTIONS)}")
    return kinds


def _style(options: argparse.Namespace) -> SpeechStyle:
    from stepaudio.documents import style_of

    names = ("emotion", "intensity", "dialect", "mode", "pitch", "volume")
    return style_of({name: getattr(options, name) for name in names})


def _say(options: argparse.Namespace) -> int | None:
    from stepaudio.core.tagged import escaped
    from stepaudio.files import WRITES, check_writable, write_text
    from stepaudio.tts import plans

    sources = [options.text, options.file, options.from_plan]
    if sources.count(None) == 3:
        raise ConfigError("say what? Give a text, or with -f a file to read aloud, or a plan: --from-plan")
    if sources.count(None) < 2:
        raise ConfigError("a text, a file (-f) and a plan (--from-plan) cannot be said at once: give one")
    if options.file is not None:
        return _say_file(options)
    if options.from_plan is not None:
        return _say_plan(options)
    if options.text != "-" and "\n" not in options.text and _is_document(options.text):
        raise ConfigError(f"{options.text} is a file: to have it read aloud, put -f before it")
    if options.split or options.type or options.format or options.jobs:
        raise ConfigError("--split, --type, --format and --jobs are for files: name one with -f")
    text = sys.stdin.buffer.read().decode("utf-8", "replace") if options.text == "-" else options.text
    style = _style(options)
    engine = open_engine(
        options,
        {"tts.voice": options.voice, "tts.speed": options.speed, "tts.experimental": options.experimental},
    )
    marked: dict[str, Any] = {"ssml": options.ssml, "unknown_tags": options.unknown_tags}
    if options.show == "tags":
        for clause in engine.clauses(text, style=style, **marked):
            print(*_understood(clause), sep="\n")
        return None
    written = engine.written(text, **marked)
    if options.show:
        for line in written.splitlines() or [""]:
            print(engine.show(line, options.show, language=options.language, dialect=style.dialect))
        return None
    check_writable(options.output or "speech.wav", WRITES)
    if options.voice and (
        others := engine.stand_ins(engine.clauses(text, style=style, **marked), options.voice)
    ):
        print(
            f"{options.voice} does not read all of this; {', '.join(others)} speaks for it", file=sys.stderr
        )
    marked |= {"language": options.language, "style": style}
    if options.plan is None:
        spoken = engine.say(text, **marked)
    else:
        check_writable(options.plan)
        if Path(options.plan) == Path(options.output or "speech.wav"):
            raise ConfigError(f"{options.plan} cannot be the plan and the audio: name two files")
        planned = engine.plan(text, **marked)
        write_text(options.plan, plans.to_json(planned))
        spoken = engine.perform(planned)
    _write(engine, spoken, escaped(written), options)
    return None


def _say_plan(options: argparse.Namespace) -> None:
    from stepaudio.core.style import SpeechStyle
    from stepaudio.core.tagged import escaped
    from stepaudio.files import WRITES, check_writable, read_bytes
    from stepaudio.tts import plans

    if _style(options) != SpeechStyle() or options.speed or options.language or options.show or options.plan:
        raise ConfigError("a plan says how it is spoken: change it there; only --voice can be another")
    if (
        options.split
        or options.type
        or options.format
        or options.jobs
        or options.ssml
        or options.unknown_tags
    ):
        raise ConfigError(
            "--split, --type, --format, --jobs, --ssml and --unknown-tags are for texts, not plans"
        )
    check_writable(options.output or "speech.wav", WRITES)
    planned = plans.from_json(read_bytes(options.from_plan))
    text = escaped(" ".join(clause.text for clause in planned))
    engine = open_engine(options)
    _write(engine, engine.perform(planned, voice=options.voice), text, options)


def _write(engine: Engine, spoken: Iterator[Speech], text: str, options: argparse.Namespace) -> None:
    """Write what is spoken as it comes, and its captions, and close the engine."""
    from stepaudio.batch import captions_of, write_captions
    from stepaudio.files import write_audio

    output = options.output or "speech.wav"
    if output == "-" and options.captions:
        raise ConfigError("captions are files beside another: name it with -o")
    seconds = 0.0
    words: list[Mark] = []
    with engine, progress_bar("speaking", unit="s of speech") as report:

        def chunks() -> Iterator[AudioChunk]:
            nonlocal seconds
            for speech in spoken:
                seconds = (speech.audio.start + len(speech.audio.samples)) / speech.audio.rate
                report(seconds, None)
                words.extend(speech.marks)
                yield speech.audio

        write_audio(output, chunks())
    write_captions(Path(output), list(captions_of(text, words)), options.captions)
    if output != "-":
        print(f"{output}: {seconds:.1f} s of speech")


def _understood(clause: Clause) -> Iterator[str]:
    """A clause, its style, and a line for every span of it."""
    yield clause.text or "(nothing to read)"
    if said := _said(clause.style):
        yield f"    all: {said}"
    for span in clause.spans:
        where = f'{span.begin}-{span.end} "{clause.text[span.begin : span.end]}"'
        if span.begin == span.end:
            where = f'{span.begin}, after "{clause.text[: span.begin][-12:]}"' if span.begin else "0"
        what = (
            _said(span.style),
            f"phonemes={span.phonemes}" if span.phonemes else "",
            f"pause={span.pause_ms}ms" if span.pause_ms is not None else "",
            f"sound={span.sound}" if span.sound else "",
            f"mark={span.bookmark}" if span.bookmark else "",
        )
        yield f"    {where}: {' '.join(filter(None, what))}"


def _said(style: SpeechStyle) -> str:
    said = ((field.name, getattr(style, field.name)) for field in dataclasses.fields(style))
    return " ".join(f"{name}={value}" for name, value in said if value is not None)


def _is_document(name: str) -> bool:
    from stepaudio.documents import KINDS

    return Path(name).suffix.lower() in KINDS and len(name) < 256 and Path(name).is_file()


def _plan_of_work(options: argparse.Namespace) -> tuple[Kind, Path, str]:
    """What is read, where the speech goes, and how files without a name end."""
    from stepaudio.documents import kind_of
    from stepaudio.files import WRITES

    source, kind = Path(options.file), options.type or kind_of(options.file)
    ending = f".{options.format or ('wav' if kind in ('jobs', 'subtitles') else 'mp3')}"
    in_folder = options.split or kind == "jobs"
    target = Path(options.output or source.stem + ("" if in_folder else ending))
    if options.file == "-":
        raise ConfigError("-f wants a file, which can be read again after a stop; `say -` reads a pipe")
    if not source.is_file():
        raise ConfigError(f"there is no file {source}")
    if options.ssml:
        raise ConfigError("--ssml is for a text: stepaudio say --ssml - < FILE")
    if options.show or options.plan:
        raise ConfigError("--show and --plan are for a text: stepaudio say --show spoken - < FILE")
    if options.output == "-":
        raise ConfigError("what is read from a file goes to a file: name it with -o")
    if options.split and kind in ("jobs", "subtitles"):
        raise ConfigError("--split is for works that have chapters: text, Markdown, EPUB")
    if in_folder and target.suffix.lower() in WRITES and not target.is_dir():
        made_by = "--split" if options.split else "a list of jobs"
        raise ConfigError(
            f"{made_by} makes a folder, and {target} looks like a file: name it with -o without the ending, "
            f"and the kind of the files in it with --format {target.suffix.lower()[1:]}"
        )
    if in_folder and target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file: the results go to a folder; name one with -o")
    if not in_folder and source.resolve() in (
        target.with_suffix(f".{kind}").resolve() for kind in options.captions
    ):
        raise ConfigError(f"captions would be written over {source}: give the output another name with -o")
    return kind, target, ending


def _say_file(options: argparse.Namespace) -> int:
    from stepaudio import batch, documents
    from stepaudio.files import read_bytes

    kind, target, ending = _plan_of_work(options)
    source, name = options.file, Path(options.file).name
    workers = options.jobs or os.cpu_count() or 1
    flags = {"tts.voice": options.voice, "tts.speed": options.speed, "tts.experimental": options.experimental}
    flags |= {"tts.unknown_tags": options.unknown_tags}
    flags |= {"tts.threads": 1} if workers > 1 else {}
    manner = batch.Manner(language=options.language, style=_style(options))
    unit = "lines" if kind == "jobs" else "parts"
    done, total = 0.0, None
    with open_engine(options, flags) as engine, progress_bar("speaking", unit) as report:

        def on_progress(now: float, all: float | None) -> None:
            nonlocal done, total
            done, total = now, all
            report(now, all)

        shared: dict[str, Any] = {"captions": options.captions, "workers": workers}
        shared["on_progress"] = on_progress
        try:
            if kind == "jobs":
                shared |= {"ending": ending, "on_problem": complain}
                made = batch.do_jobs(engine, Path(source), target, manner, **shared)
            else:
                data = read_bytes(source)
                shared |= {"source": source, "data": data}
                if kind == "subtitles":
                    made = batch.dub(engine, documents.read_cues(data, name), target, manner, **shared)
                else:
                    book = documents.read_book(data, kind, name)
                    shared["split"] = ending if options.split else None
                    made = batch.read_aloud(engine, book, target, manner, **shared)
        except KeyboardInterrupt:
            share = f"{done:.0f} of {total or 0:.0f} {unit}"
            print(f"what is done ({share}) is kept: the same command goes on from there", file=sys.stderr)
            raise
    return _tell(made, target, unit, told=kind == "jobs")


_NOTES = 10
"""So many notes are printed; of more, how many there are."""


def _tell(made: Report, target: Path, unit: str, told: bool) -> int:
    for note in made.notes[:_NOTES]:
        print(note, file=sys.stderr)
    if more := made.notes[_NOTES:]:
        print(f"… and {len(more)} more like these", file=sys.stderr)
    for problem in () if told else made.problems:
        complain(problem)
    kept = f"; {made.kept} {unit} were done before" if made.kept > 1 else ""
    kept = f"; 1 {unit.removesuffix('s')} was done before" if made.kept == 1 else kept
    print(f"{target}: {_length(made.seconds)} of speech{kept}")
    if made.problems:
        complain(f"{len(made.problems)} could not be said")
    return 1 if made.problems else 0


def _length(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
