"""Much to say: books, subtitles and lists of texts, spoken by several threads, such that a kill costs little.

A work is cut into parts of under a minute. Each is a file whose name is the hash of all that it is made from
(words, voice, style, settings), written whole or not at all: what is there need not be made again, whatever
ended the program, and a change of the input costs only the parts that changed. When all are there they are
joined, one after another, into the file that was asked for. A list of jobs makes a file a line, and a journal
says which lines those files are of.

Threads share one engine, whose models compute on one thread each: on two cores that was 15 % faster than one
clause after another on both (Kokoro, 40 s of speech in 6.9 s instead of 8.0 s), and just as fast as two
processes, which would hold the models twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from filelock import FileLock, Timeout

import stepaudio
from stepaudio.containers import MOST_CHAPTERS, ChapterMark, Tags
from stepaudio.core.audio import AudioChunk, join
from stepaudio.core.clauses import Mark, find_end, is_han, weight
from stepaudio.core.errors import ConfigError, ModelMissing, StepAudioError, TextError
from stepaudio.core.style import SpeechStyle
from stepaudio.core.tagged import parse
from stepaudio.documents import LINE_BYTES, Book, Cue, Job, Paragraph, plain, read_jobs
from stepaudio.files import TAGGED, WRITES, check_writable, read_audio, sweep, write_audio, write_text
from stepaudio.recognition import formats
from stepaudio.recognition.base import Segment, Transcript, Word

if TYPE_CHECKING:
    from stepaudio.engine import Engine

PART_WEIGHT = 600
"""A part is full from here on (40 s of speech): as much is lost of each thread's work by a kill."""
FASTEST = 1.5
"""Times that a subtitle is spoken faster than asked, at most, to end before the next one begins."""
_TAIL_MS = 120  # of silence are left after the last word of a subtitle
GAP_MS = 80
"""Silence that is left between a subtitle and the next."""
CAPTIONS = ("srt", "vtt", "json")
CAPTION_WEIGHT, CAPTION_GAP_MS = 84, 1000
"""Longest caption (two lines of 42 letters, as is usual), and the silence after which a new one begins."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Manner:
    """How a work is to be spoken: see ``Engine.say``."""

    voice: str | None = None
    language: str | None = None
    style: SpeechStyle = field(default_factory=SpeechStyle)


@dataclass(frozen=True, slots=True)
class Piece:
    """What is said in one go.

    Attributes:
        pause_ms: silence after it.
        slot_ms: what it should not last longer than; None: as long as it takes.
    """

    text: str
    pause_ms: int = 0
    slot_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """How a piece was said.

    Attributes:
        rate: Hz of the audio.
        samples: its length.
        pause: samples of the silence after it.
        words: in ms from its start.
        faster: times that it was spoken faster than asked.
        problem: why it is silent; "" where it is not.
    """

    rate: int
    samples: int
    pause: int
    words: tuple[Mark, ...]
    faster: float = 1.0
    problem: str = ""


@dataclass(slots=True)
class Report:
    """What came of a run.

    Attributes:
        files: that were written.
        seconds: of audio in them.
        kept: parts or lines that an earlier run had done.
        notes: what the listener should know, one a line.
        problems: what could not be said, one a line.
    """

    files: list[Path] = field(default_factory=list)
    seconds: float = 0.0
    kept: int = 0
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


Progress = Callable[[float, float | None], None]


class Stopped(Exception):
    """The run is over; nobody waits for this result."""


class Reader:
    """Speaks pieces, for threads that run until ``stop`` is set."""

    def __init__(self, engine: Engine, stop: threading.Event) -> None:
        self._engine, self._stop = engine, stop
        self._loading = threading.Lock()
        self._loaded: set[str | None] = set()
        settings = engine.config.tts.model_dump(mode="json", exclude={"threads"})
        self._recipe = [stepaudio.__version__, settings]

    def key(self, pieces: Sequence[Piece], manner: Manner, *more: object) -> str:
        """The hash of all that makes the sound of pieces what it is."""
        made_from = [self._recipe, [asdict(piece) for piece in pieces], asdict(manner), more]
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:32]

    def say(self, text: str, manner: Manner, marks: list[Mark], faster: float = 1.0) -> Iterator[AudioChunk]:
        """Audio of a text as it comes; its words are put into ``marks``.

        Raises:
            Stopped: ``stop`` is set.
            StepAudioError: as ``Engine.say``.
        """
        style = manner.style
        if faster != 1:
            asked = self._engine.config.tts.speed if style.speed is None else style.speed
            style = replace(style, speed=min(asked * faster, 2.0))
        pieces = self._engine.say(text, voice=manner.voice, language=manner.language, style=style)
        if manner.voice not in self._loaded:  # one thread loads a voice, the others wait for it
            with self._loading:
                speech = next(pieces, None)
                self._loaded.add(manner.voice)
        else:
            speech = next(pieces, None)
        while speech is not None:
            if self._stop.is_set():
                raise Stopped
            marks += speech.marks
            yield speech.audio
            speech = next(pieces, None)

    def piece(self, piece: Piece, manner: Manner, said: list[Said]) -> Iterator[AudioChunk]:
        """Audio of a piece and of the pause after it; how it was said is put into ``said``."""
        faster, rate, samples, problem = 1.0, 24_000, 0, ""
        marks: list[Mark] = []
        try:
            if piece.slot_ms is None:
                for chunk in self.say(piece.text, manner, marks):
                    rate, samples = chunk.rate, samples + len(chunk.samples)
                    yield chunk
            else:
                chunks, faster = self._fitted(piece.text, piece.slot_ms, manner, marks)
                rate, samples = chunks[0].rate, sum(len(chunk.samples) for chunk in chunks)
                yield from chunks
        except TextError as error:
            problem = str(error)
        pause = max(piece.pause_ms * rate // 1000, 1 if problem else 0)  # a file of audio is never empty
        said.append(Said(rate, samples, pause, tuple(marks), faster, problem))
        if pause:
            yield AudioChunk(np.zeros(pause, np.float32), rate)

    def _fitted(
        self, text: str, slot_ms: int, manner: Manner, marks: list[Mark]
    ) -> tuple[list[AudioChunk], float]:
        """The audio of a text that should last ``slot_ms``, without the silence after its last word, and how
        much faster it is spoken for that."""
        faster = 1.0
        for _ in range(3):  # the second time is rarely off, by little
            marks.clear()
            whole = join(self.say(text, manner, marks, faster))
            end = (marks[-1].end_ms + _TAIL_MS) * whole.rate // 1000 if marks else None
            chunks = [replace(whole, samples=whole.samples[:end])]
            over = 1000 * sum(chunk.seconds for chunk in chunks) / max(slot_ms, 1)
            if over <= 1 or faster == FASTEST:
                break
            faster = min(faster * over * 1.02, FASTEST)
        return chunks, round(faster, 3)


def work(tasks: Iterable[T], do: Callable[[T], object], workers: int, stop: threading.Event) -> Generator[T]:
    """Do tasks in threads, a few ahead of the others; yield each when it is done, not in order.

    An error of one, Ctrl-C, or closing the iterator sets ``stop`` and waits for the threads to see it.
    """
    waiting: dict[Future[object], T] = {}

    def finished() -> Iterator[T]:
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            task = waiting.pop(future)
            future.result()
            yield task

    with ThreadPoolExecutor(workers) as pool:
        try:
            for task in tasks:
                waiting[pool.submit(do, task)] = task
                if len(waiting) >= 2 * workers:
                    yield from finished()
            while waiting:
                yield from finished()
        finally:
            stop.set()
            for future in waiting:
                future.cancel()


# --- parts --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """Pieces that are made together. ``key`` is their hash."""

    pieces: tuple[Piece, ...]
    key: str


class Workshop:
    """The folder of the parts of one work, beside the file that they will be joined to.

    Args:
        target: that file (or folder).
        source: what is read aloud, and its bytes: an input that has changed since is noticed.

    Raises:
        ConfigError: another run is at work on the same file.
    """

    def __init__(self, target: Path, source: str, data: bytes) -> None:
        self.folder = target.with_name(target.name + ".parts")
        self.source, self._digest = source, hashlib.sha256(data).hexdigest()
        _make_folder(self.folder)
        self._lock = _locked(self.folder / "lock", target)
        sweep(target.parent, target.name)
        sweep(self.folder)

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def has(self, key: str) -> bool:
        """Whether a part is there, whole."""
        return (self.folder / f"{key}.json").is_file() and (self.folder / f"{key}.flac").is_file()

    def changed(self) -> bool:
        """Whether an earlier run read another input. This one's is noted."""
        note = self.folder / "input.json"
        try:
            before = json.loads(note.read_text())["sha256"]
        except (OSError, ValueError, LookupError, TypeError):
            before = self._digest
        write_text(note, json.dumps({"input": self.source, "sha256": self._digest}) + "\n")
        return before != self._digest

    def make(self, reader: Reader, part: Part, manner: Manner) -> None:
        """Speak a part, and keep it. What says how it was said comes last: with it, the part is there."""
        said: list[Said] = []
        chunks = (chunk for piece in part.pieces for chunk in reader.piece(piece, manner, said))
        write_audio(self.folder / f"{part.key}.flac", chunks)
        write_text(self.folder / f"{part.key}.json", json.dumps([asdict(one) for one in said]) + "\n")

    def said(self, part: Part) -> list[Said]:
        """How the pieces of a part were said."""
        plain = json.loads((self.folder / f"{part.key}.json").read_text())
        return [Said(**one | {"words": tuple(Mark(**word) for word in one["words"])}) for one in plain]

    def audio(self, part: Part) -> AudioChunk:
        """The sound of a part, pauses included."""
        return read_audio(self.folder / f"{part.key}.flac", rate=None)

    def clear(self) -> None:
        """The work is done: nothing of the parts is left. Files that are none of ours stay."""
        for path in self.folder.iterdir():
            ours = path.suffix in (".flac", ".json") and len(path.stem) == 32
            if ours or path.name in ("input.json", "lock"):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot make the folder {folder}: {why}; choose another place") from error


def _locked(path: Path, target: Path) -> FileLock:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"another run is at work on {target}: wait for it, or write another file") from None
    return lock


def _make_parts(
    shop: Workshop,
    reader: Reader,
    parts: Sequence[Part],
    manner: Manner,
    workers: int,
    stop: threading.Event,
    on_progress: Progress,
    report: Report,
) -> None:
    changed = shop.changed()
    todo = list({part.key: part for part in parts if not shop.has(part.key)}.values())
    total = len({part.key for part in parts})
    done = report.kept = total - len(todo)
    if changed:
        report.notes.append(
            f"the input has changed since: {done} of {total} parts are as they were, and kept"
        )
    on_progress(done, total)
    for _ in work(todo, lambda part: shop.make(reader, part, manner), workers, stop):
        done += 1
        on_progress(done, total)
    problems = [one.problem for part in parts for one in shop.said(part)]
    if problems and all(problems):
        shop.clear()
        raise TextError(f"nothing of {shop.source} can be said, so no audio was written: {problems[0]}")


# --- books --------------------------------------------------------------------------------------------------


def read_aloud(
    engine: Engine,
    book: Book,
    target: Path,
    manner: Manner,
    *,
    source: str,
    data: bytes,
    split: str | None = None,
    captions: Sequence[str] = (),
    workers: int = 1,
    on_progress: Progress = lambda done, total: None,
) -> Report:
    """Read a book into one file with chapters, or into a folder with a file a chapter and a playlist.

    What cannot be said is silent, and the report tells of it.

    Args:
        target: the file, or with ``split`` the folder, which is made.
        source, data: name and bytes of what the book was read from.
        split: ending of the chapters' files (".mp3").
        captions: of ``CAPTIONS``: written beside every file.
        workers: threads.
        on_progress: called with the parts done and the parts there are.

    Raises:
        TextError: nothing can be said; nothing is written.
        ConfigError, StepAudioError: as ``files.check_writable`` and ``Engine.say``; what is done is kept.
    """
    if split is None:
        check_writable(target, WRITES)
    marked = split is None and target.suffix.lower() in TAGGED
    if marked and len(book.chapters) > MOST_CHAPTERS:
        raise ConfigError(
            f"{source} has {len(book.chapters)} chapters, and a file can have {MOST_CHAPTERS}: add --split"
        )
    report, stop = Report(), threading.Event()
    reader = Reader(engine, stop)
    chapters = [list(_parts(chapter.paragraphs, reader, manner)) for chapter in book.chapters]
    with Workshop(target, source, data) as shop:
        every = [part for parts in chapters for part in parts]
        _make_parts(shop, reader, every, manner, workers, stop, on_progress, report)
        for part in every:
            report.problems += (
                f"{_short(piece.text)}: {said.problem}"
                for piece, said in zip(part.pieces, shop.said(part), strict=True)
                if said.problem
            )
        if split is None:
            said = ((one for part in parts for one in shop.said(part)) for parts in chapters)
            lengths = [sum((one.samples + one.pause) / one.rate for one in chapter) for chapter in said]
            ends = [round(1000 * end) for end in np.cumsum(lengths)]
            places = zip(book.chapters, [0, *ends], ends, strict=False)
            marks = tuple(ChapterMark(c.title or book.title, begin, end) for c, begin, end in places)
            tags = Tags(book.title, book.author, marks if len(marks) > 1 else ())
            _join(shop, every, target, tags, captions, report)
            if len(marks) > 1 and not marked:
                names = ", ".join(TAGGED)
                report.notes.append(f"{target} has no marks of chapters: {names} have; or add --split")
        else:
            _make_folder(target)
            for number, (chapter, parts) in enumerate(zip(book.chapters, chapters, strict=True), 1):
                title = chapter.title or book.title
                path = target / f"{number:03} {_file_name(title)}{split}"
                _join(shop, parts, path, Tags(title, book.author), captions, report)
            playlist = target / f"{_file_name(book.title)}.m3u8"
            audio = [path.name for path in report.files if path.suffix == split]
            write_text(playlist, "#EXTM3U\n" + "".join(f"{name}\n" for name in audio))
            report.files.append(playlist)
        shop.clear()
    return report


def _parts(paragraphs: Sequence[Paragraph], reader: Reader, manner: Manner) -> Iterator[Part]:
    pieces: list[Piece] = []
    full = 0
    for paragraph in paragraphs:
        for piece in _pieces(paragraph):
            pieces.append(piece)
            full += weight(piece.text)
            if full >= PART_WEIGHT:
                yield Part(tuple(pieces), reader.key(pieces, manner))
                pieces, full = [], 0
    if pieces:
        yield Part(tuple(pieces), reader.key(pieces, manner))


def _pieces(paragraph: Paragraph) -> Iterator[Piece]:
    """A paragraph in one piece; one without an end is cut after sentences."""
    text = paragraph.text
    while weight(text[: 4 * PART_WEIGHT]) > 2 * PART_WEIGHT:
        at = 0
        while weight(text[:at]) < PART_WEIGHT:
            at += find_end(text[at:], None, final=True) or len(text)
        head, text = text[:at].strip(), text[at:].strip()
        if not text:
            text = head
            break
        yield Piece(head)
    yield Piece(text, paragraph.pause_ms)


def _join(
    shop: Workshop, parts: Sequence[Part], path: Path, tags: Tags, captions: Sequence[str], report: Report
) -> None:
    """Write the parts as one file, part by part, and its captions."""
    segments: list[Segment] = []
    done = rate = 0

    def chunks() -> Iterator[AudioChunk]:
        nonlocal done, rate
        for part in parts:
            audio = shop.audio(part)
            rate, at = audio.rate, done
            for piece, said in zip(part.pieces, shop.said(part), strict=True):
                if captions:
                    segments.extend(captions_of(piece.text, said.words, round(1000 * at / rate)))
                at += said.samples + said.pause
            done += len(audio.samples)
            yield audio

    write_audio(path, chunks(), tags)
    report.files.append(path)
    report.seconds += done / rate
    report.files += write_captions(path, segments, captions)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return f"“{line[:40]}…”" if len(line) > 41 else f"“{line}”"


def _file_name(title: str) -> str:
    """A title as the name of a file on any system."""
    name = "".join(" " if char in '/\\:*?"<>|' or not char.isprintable() else char for char in title)
    return " ".join(name.encode()[:100].decode(errors="ignore").split()).strip(". ") or "untitled"


# --- subtitles ----------------------------------------------------------------------------------------------


def dub(
    engine: Engine,
    cues: Sequence[Cue],
    target: Path,
    manner: Manner,
    *,
    source: str,
    data: bytes,
    captions: Sequence[str] = (),
    workers: int = 1,
    on_progress: Progress = lambda done, total: None,
) -> Report:
    """Speak subtitles at their times.

    A cue may last until the next one begins. What would last longer is spoken up to ``FASTEST`` times as
    fast; where even that does not do, the next one begins late. The report tells of both.

    Args, Raises: as ``read_aloud``.
    """
    check_writable(target, WRITES)
    report, stop = Report(), threading.Event()
    reader = Reader(engine, stop)
    pieces = [
        Piece(cue.text, slot_ms=max(1, following.start_ms - cue.start_ms - GAP_MS))
        for cue, following in pairwise(cues)
    ]
    pieces.append(Piece(cues[-1].text))
    parts = [Part(group, reader.key(group, manner)) for group in _groups(pieces)]
    with Workshop(target, source, data) as shop:
        _make_parts(shop, reader, parts, manner, workers, stop, on_progress, report)
        segments: list[Segment] = []
        done = rate = 0

        def chunks() -> Iterator[AudioChunk]:
            nonlocal done, rate
            number = 0
            for part in parts:
                audio = shop.audio(part)
                rate, at = audio.rate, 0
                for piece, said in zip(part.pieces, shop.said(part), strict=True):
                    cue, number = cues[number], number + 1
                    while done < (start := cue.start_ms * rate // 1000):
                        silence = np.zeros(min(start - done, rate), np.float32)
                        done += len(silence)
                        yield AudioChunk(silence, rate)
                    _tell(report, number, cue, said, late_s=done / rate - cue.start_ms / 1000)
                    segments.extend(captions_of(piece.text, said.words, round(1000 * done / rate)))
                    done += said.samples
                    yield AudioChunk(audio.samples[at : at + said.samples], rate)
                    at += said.samples + said.pause

        write_audio(target, chunks())
        report.files.append(target)
        report.seconds = done / rate
        report.files += write_captions(target, segments, captions)
        shop.clear()
    return report


def _groups(pieces: Sequence[Piece]) -> Iterator[tuple[Piece, ...]]:
    group: list[Piece] = []
    for piece in pieces:
        group.append(piece)
        if sum(weight(one.text) for one in group) >= PART_WEIGHT:
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)


def _tell(report: Report, number: int, cue: Cue, said: Said, late_s: float) -> None:
    place = f"cue {number} at {cue.start_ms / 1000:.1f} s"
    if said.problem:
        report.problems.append(f"{place}: {said.problem}")
    if said.faster > 1 and late_s < 0.1:
        report.notes.append(f"{place}: spoken {said.faster:.2f} times as fast, to fit")
    if late_s >= 0.1:
        fast = f", and spoken {said.faster:.2f} times as fast" if said.faster > 1 else ""
        report.notes.append(f"{place}: begins {late_s:.1f} s late, after the one before it{fast}")


# --- lists of jobs ------------------------------------------------------------------------------------------


class Journal:
    """Which lines are done: one JSON object for each, on disk before the line is told of. For threads.

    Args:
        path: of the journal; its folder is there.
        source: what the jobs are read from, and its hash: an input that has changed since is noticed.

    Raises:
        ConfigError: another run is at work with the same journal.
    """

    def __init__(self, path: Path, source: str, digest: str) -> None:
        self._lock = _locked(path.with_name(f".{path.name}.lock"), path.parent)
        if path.exists():
            sweep(path.parent)
        self._writing = threading.Lock()
        self._keys: dict[str, str] = {}
        before, whole = digest, b""
        if path.exists():
            whole = path.read_bytes()
            for raw in whole.split(b"\n"):
                with contextlib.suppress(ValueError, LookupError, TypeError):  # the last one may be torn
                    entry = json.loads(raw)
                    if "sha256" in entry:
                        before = entry["sha256"]
                    else:
                        self._keys[entry["file"]] = entry["key"]
        self.changed = before != digest
        self._file: BinaryIO = path.open("ab")
        if whole and not whole.endswith(b"\n"):
            self._file.write(b"\n")
        self._write({"input": source, "sha256": digest})

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def has(self, file: str, key: str) -> bool:
        """Whether a file was made by the job of this hash."""
        return self._keys.get(file) == key

    def add(self, file: str, key: str, line: int) -> None:
        """A file is there now."""
        self._write({"line": line, "file": file, "key": key})

    def _write(self, entry: Mapping[str, Any]) -> None:
        with self._writing:
            self._file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())


def do_jobs(
    engine: Engine,
    path: Path,
    folder: Path,
    manner: Manner,
    *,
    ending: str = ".wav",
    captions: Sequence[str] = (),
    workers: int = 1,
    on_progress: Progress = lambda done, total: None,
    on_problem: Callable[[str], None] = lambda says: None,
) -> Report:
    """Speak the lines of a list of jobs, each into its own file of ``folder``.

    A line that cannot be done is told of, and the others go on.

    Args:
        path: of the list (``documents.read_jobs``).
        folder: is made. It also holds the journal, called as the list with ``.done`` behind.
        manner: of lines that say nothing else.
        ending: of files that no line names.
        on_progress: called with the lines done and the lines there are.
        on_problem: called with what is wrong with a line, at once; the report holds it, too.

    Raises:
        ModelMissing, ConfigError: nothing can be done, or as ``files.check_writable``.
    """
    report, stop = Report(), threading.Event()
    reader = Reader(engine, stop)
    digest, total = _digest(path)
    _make_folder(folder)
    check_writable(folder / f"x{ending}", WRITES)
    done = 0
    keys: dict[int, str] = {}
    problems: dict[int, str] = {}
    seconds: dict[int, float] = {}

    def told(line: int, says: str) -> None:
        nonlocal done
        done += 1
        report.problems.append(f"{path}, line {line}: {says}")
        on_problem(report.problems[-1])
        on_progress(done, total)

    def of(job: Job) -> Manner:
        return Manner(
            job.voice or manner.voice, job.language or manner.language, job.style.over(manner.style)
        )

    def todo(lines: Iterable[bytes]) -> Iterator[Job]:
        nonlocal done
        for job in read_jobs(lines, WRITES, ending):
            if not isinstance(job, Job):
                told(job.line, job.says)
                continue
            key = reader.key([Piece(job.text)], of(job), job.file, sorted(captions))
            if journal.has(job.file, key) and (folder / job.file).is_file():
                done, report.kept = done + 1, report.kept + 1
                on_progress(done, total)
                continue
            keys[job.line] = key
            yield job

    def do(job: Job) -> None:
        target, marks = folder / job.file, list[Mark]()
        length = 0.0

        def chunks() -> Iterator[AudioChunk]:
            nonlocal length
            for chunk in reader.say(job.text, of(job), marks):
                length += chunk.seconds
                yield chunk

        try:
            _make_folder(target.parent)
            write_audio(target, chunks())
            write_captions(target, list(captions_of(job.text, marks)), captions)
            journal.add(job.file, keys[job.line], job.line)
            seconds[job.line] = length
        except ModelMissing:
            raise
        except StepAudioError as error:
            problems[job.line] = str(error)

    with (
        Journal(folder / f"{path.name}.done", str(path), digest) as journal,
        path.open("rb") as lines,
        contextlib.closing(work(todo(_lines(lines)), do, workers, stop)) as finished,
    ):
        if journal.changed:
            report.notes.append(f"{path} has changed since: only lines that are new or other are spoken")
        on_progress(done, total)
        for job in finished:
            del keys[job.line]
            if says := problems.pop(job.line, ""):
                told(job.line, says)
                continue
            report.seconds += seconds.pop(job.line)
            report.files.append(folder / job.file)
            done += 1
            on_progress(done, total)
    return report


def _digest(path: Path) -> tuple[str, int]:
    """The hash of a file, and how many lines it has with something in them."""
    digest, count = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            for line in _lines(file):
                digest.update(line)
                count += bool(line.strip())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest(), count


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines as they come; of one that is too long, a piece that is too long as well."""
    while line := file.readline(LINE_BYTES + 1):
        rest = line
        while len(rest) > LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(LINE_BYTES + 1)
        yield line


# --- captions -----------------------------------------------------------------------------------------------

_ENDS, _COMMAS = ".!?…。！？\n", ",;:—，；：、"


def captions_of(text: str, words: Sequence[Mark], offset_ms: int = 0) -> Iterator[Segment]:
    """What was said as captions: sentences, cut at commas where they are long, and at silences.

    Args:
        text: as written.
        words: of it that were spoken, in ms; they are looked for in ``text`` one after the other.
        offset_ms: where the first one's clock begins.
    """
    text = parse(text, strict=False).text
    places, at = list[tuple[int, int]](), 0  # of the words in the text
    for word in words:
        begin = text.find(word.text, at)
        begin = at if begin < 0 else begin
        at = min(len(text), begin + len(word.text))
        places.append((begin, at))
    first, comma = 0, 0
    for i, word in enumerate(words):
        following = words[i + 1] if i + 1 < len(words) else None
        if following is not None:
            between = text[places[i][1] : places[i + 1][0]]
            if any(char in _COMMAS for char in between):
                comma = i + 1
            long = weight(text[places[first][0] : places[i + 1][1]]) > CAPTION_WEIGHT
            ends = any(char in _ENDS for char in between)
            if not ends and following.start_ms - word.end_ms < CAPTION_GAP_MS and not long:
                continue
        stop = comma if following and long and not ends and comma > first else i + 1
        begin = _opening(text, places[first][0])
        end = _opening(text, places[stop][0]) if stop < len(words) else len(text)
        inside = [Word(w.text, w.start_ms + offset_ms, w.end_ms + offset_ms) for w in words[first:stop]]
        shown = plain(" ".join(text[begin:end].split()))
        yield Segment(shown, inside[0].start_ms, inside[-1].end_ms, tuple(inside))
        first = comma = stop  # what follows a comma, up to here, begins the next caption


def _opening(text: str, at: int) -> int:
    """Where what a word begins with begins: quotes and brackets that open before it."""
    while at and text[at - 1] in "\"'“‘«([{「『（《¿¡$€£" and (at == 1 or not text[at - 2].isalnum()):
        at -= 1
    return at


def write_captions(path: Path, segments: Sequence[Segment], kinds: Sequence[str]) -> list[Path]:
    """Write captions beside an audio file; return where."""
    if not kinds:
        return []
    text = " ".join(segment.text for segment in segments)
    han = sum(map(is_han, text))
    transcript = Transcript(text, "zh" if han > len(text) / 4 else "en", tuple(segments))
    written = []
    for kind in kinds:
        written.append(path.with_suffix(f".{kind}"))
        write_text(written[-1], formats.write(transcript, kind))
    return written
