"""Much to say: parts, journals, kills, subtitles in time, captions. The voices are fakes here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stepaudio import batch, config
from stepaudio.batch import Manner, Piece, Said, captions_of, do_jobs, dub, read_aloud, work
from stepaudio.containers import MOST_CHAPTERS
from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause, Mark
from stepaudio.core.errors import ConfigError, ModelMissing, TextError
from stepaudio.documents import CHAPTER_MS, Book, Chapter, Cue, Paragraph, read_book
from stepaudio.engine import Engine
from stepaudio.files import read_audio
from stepaudio.tts.base import Speech, Voice
from tests.fakes import RATE, FakeSpeaker

ROOT = Path(__file__).resolve().parent.parent
PLAIN = Manner()


class Talker(FakeSpeaker):
    """Speaks 0.1 s a word at speed 1, in one piece a clause."""

    def speak(self, clause: Clause, *, voice: Voice | None = None, ahead_s: float = 0.0) -> Iterator[Speech]:
        self.clauses.append(clause)
        words = clause.text.split()
        each_ms = round(100 / (clause.style.speed or 1))
        samples = np.full(len(words) * each_ms * RATE // 1000, 0.1, np.float32)
        marks = tuple(Mark(word, i * each_ms, (i + 1) * each_ms) for i, word in enumerate(words))
        yield Speech(AudioChunk(samples, RATE), marks)


def engine(speaker: FakeSpeaker | None = None) -> Engine:
    made = Engine(config.load(None, {}).config)
    made.__dict__["speaker"] = speaker or Talker()
    return made


def book(*chapters: str) -> Book:
    text = "\n\n".join(f"# C{i}\n\n{words}" for i, words in enumerate(chapters, 1))
    return read_book(text.encode(), "markdown", "b.md")


def aloud(speaker: FakeSpeaker, work: Book, target: Path, **options) -> batch.Report:
    given = {"source": "b.md", "data": repr(work).encode()} | options
    return read_aloud(engine(speaker), work, target, PLAIN, **given)


def spoken(speaker: FakeSpeaker) -> list[str]:
    return [clause.text for clause in speaker.clauses]


# books


def test_a_book_is_one_file_with_the_silence_of_its_paragraphs(tmp_path):
    made = aloud(Talker(), book("One two three.", "Four five."), tmp_path / "b.wav", captions=("srt",))
    assert [path.name for path in made.files] == ["b.wav", "b.srt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.srt", "b.wav"]
    # C1, 0.8 s, three words, 1.8 s, C2, 0.8 s, two words, 1.8 s
    audio = read_audio(tmp_path / "b.wav", None)
    assert audio.seconds == pytest.approx(0.1 + 0.8 + 0.3 + 1.8 + 0.1 + 0.8 + 0.2 + CHAPTER_MS / 1000)
    assert made.seconds == pytest.approx(audio.seconds)
    assert "00:00:00,900 --> 00:00:01,200\nOne two three.\n" in (tmp_path / "b.srt").read_text()
    assert "00:00:03,900 --> 00:00:04,100\nFour five.\n" in (tmp_path / "b.srt").read_text()
    loud = np.abs(audio.samples) > 0.01
    assert loud[int(3.95 * RATE)] and not loud[int(3.85 * RATE)]
    assert "has no marks of chapters" in made.notes[0] and "--split" in made.notes[0]


def test_chapters_are_where_they_begin(tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    aloud(Talker(), book("One two three.", "Four five."), tmp_path / "b.mp3")
    with av.open(str(tmp_path / "b.mp3")) as file:
        chapters = [(c["start"], c["end"], c["metadata"]["title"]) for c in file.chapters()]
    assert chapters == [(0, 3000, "C1"), (3000, 5900, "C2")]


def test_a_file_a_chapter_and_a_playlist(tmp_path):
    work = book("One.", "Two/three?")
    made = aloud(Talker(), work, tmp_path / "out", split=".flac")
    names = ["001 C1.flac", "002 C2.flac", "b.m3u8"]
    assert sorted(path.name for path in made.files) == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert (tmp_path / "out/b.m3u8").read_text() == "#EXTM3U\n001 C1.flac\n002 C2.flac\n"


def test_titles_that_are_no_file_names(tmp_path):
    chapters = tuple(
        Chapter(title, (Paragraph("One."),)) for title in ("../a", "", "CON: x?", "第" * 200, "a\nb.")
    )
    made = aloud(Talker(), Book("T", "", chapters), tmp_path / "out", split=".wav")
    assert [path.name for path in made.files[:3]] == ["001 a.wav", "002 T.wav", "003 CON x.wav"]
    assert [path.parent for path in made.files] == [tmp_path / "out"] * 6


def test_too_many_chapters_for_one_file(tmp_path):
    chapters = tuple(Chapter(str(i), (Paragraph("One."),)) for i in range(MOST_CHAPTERS + 1))
    with pytest.raises(ConfigError, match="--split"):
        aloud(Talker(), Book("T", "", chapters), tmp_path / "out.mp3")
    assert not list(tmp_path.iterdir())


def test_long_paragraphs_are_several_pieces_that_lose_nothing():
    sentence = "All the king's horses and all the king's men said so. "
    paragraph = Paragraph(sentence * 200, 350)
    pieces = list(batch._pieces(paragraph))
    assert " ".join(piece.text for piece in pieces) == paragraph.text.strip()
    assert len(pieces) > 5 and {piece.pause_ms for piece in pieces} == {0, 350}
    endless = list(batch._pieces(Paragraph("x" * 10_000)))
    assert "".join(piece.text for piece in endless) == "x" * 10_000


LONG = " ".join(f"Word{i} and so on it goes until it ends." for i in range(60))
"""60 clauses, in several parts."""


def test_a_change_costs_only_the_parts_that_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(batch.Workshop, "clear", lambda self: None)
    first = Talker()
    aloud(first, book(LONG, "The end."), tmp_path / "b.wav")
    again = Talker()
    made = aloud(again, book(LONG, "Another end."), tmp_path / "b.wav")
    assert spoken(again) == ["C2", "Another end."]
    assert re.match("the input has changed since: [234] of [345] parts are as they were", made.notes[0])
    other_voice = Talker()
    read_aloud(
        engine(other_voice), book(LONG), tmp_path / "b.wav", Manner(language="en"), source="b", data=b""
    )
    assert len(spoken(other_voice)) > 60


class Choosy(Talker):
    """Has no words for what is bad."""

    def speak(self, clause: Clause, **options) -> Iterator[Speech]:
        if "bad" not in clause.text:
            yield from super().speak(clause, **options)


def test_what_cannot_be_said_is_told_and_the_rest_goes_on(tmp_path):
    made = aloud(Choosy(), book("Good.\n\nbad\n\nGood."), tmp_path / "b.wav", captions=("json",))
    assert made.problems == ["“bad”: there is nothing in the text that can be spoken"]
    told = json.loads((tmp_path / "b.json").read_text())
    assert [segment["text"] for segment in told["segments"]] == ["C1", "Good.", "Good."]


def test_where_nothing_can_be_said_there_is_no_file(tmp_path):
    silent = Book("T", "", (Chapter("", (Paragraph("bad"), Paragraph("bad, too"))),))
    for options in ({}, {"split": ".wav"}, {"captions": ("srt",)}):
        with pytest.raises(TextError, match=r"nothing of b\.md can be said, so no audio was written"):
            aloud(Choosy(), silent, tmp_path / "b.wav", **options)
    with pytest.raises(TextError, match=r"nothing of c\.srt can be said"):
        cues = [Cue(0, 500, "bad"), Cue(1000, 1500, "bad")]
        dub(engine(Choosy()), cues, tmp_path / "c.wav", PLAIN, source="c.srt", data=b"")
    assert not list(tmp_path.iterdir())


def test_two_runs_on_one_file(tmp_path):
    with (
        batch.Workshop(tmp_path / "b.wav", "b", b""),
        pytest.raises(ConfigError, match="another run is at work"),
    ):
        aloud(Talker(), book("One."), tmp_path / "b.wav")


def test_files_of_others_in_the_folder_of_the_parts_stay(tmp_path):
    (tmp_path / "b.wav.parts").mkdir()
    (tmp_path / "b.wav.parts/mine.txt").write_text("mine")
    aloud(Talker(), book("One."), tmp_path / "b.wav")
    assert [path.name for path in (tmp_path / "b.wav.parts").iterdir()] == ["mine.txt"]


# kills

KILLED = """
import os, signal, sys
from pathlib import Path
from stepaudio.batch import Manner, do_jobs, read_aloud
from tests.test_batch import Talker, engine

class Dying(Talker):
    def speak(self, clause, **options):
        if len(self.clauses) == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().speak(clause, **options)

target = Path(sys.argv[3])
"""
READS = """
from stepaudio.documents import read_book
data = Path(sys.argv[2]).read_bytes()
read_aloud(engine(Dying()), read_book(data, "text", "b.txt"), target, Manner(), source="b.txt", data=data)
"""
DOES = "do_jobs(engine(Dying()), Path(sys.argv[2]), target, Manner())"


def killed(code: str, after: int, source: Path, target: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED + code, str(after), str(source), str(target)],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -9, ended.stderr.decode()


@pytest.mark.parametrize("after", [0, 1, 70, 150, 239])
def test_a_book_goes_on_after_a_kill(tmp_path, after):
    source, target = tmp_path / "b.txt", tmp_path / "b.wav"
    source.write_text("\n\n".join(LONG.replace("Word", f"W{i}x") for i in range(4)))  # 60 clauses each
    data = source.read_bytes()
    work = read_book(data, "text", "b.txt")
    aloud(Talker(), work, tmp_path / "whole.wav", data=data)
    killed(READS, after, source, target)
    assert not target.exists()
    resumed = Talker()
    made = aloud(resumed, work, target, data=data)
    assert target.read_bytes() == (tmp_path / "whole.wav").read_bytes()
    kept = 240 - len(resumed.clauses)
    assert after - 45 < kept <= after  # a part has up to 40 clauses: no more than one is lost
    assert bool(made.kept) == bool(kept) and not made.notes
    assert {path.name for path in tmp_path.iterdir()} == {"b.txt", "b.wav", "whole.wav"}


@pytest.mark.parametrize("after", [0, 3, 9])
def test_jobs_go_on_after_a_kill(tmp_path, after):
    source, folder = tmp_path / "jobs.jsonl", tmp_path / "out"
    source.write_text("".join(f'{{"text": "Number {i}."}}\n' for i in range(10)))
    killed(DOES, after, source, folder)
    there = {path.name: path.read_bytes() for path in folder.glob("*.wav")}
    assert len(there) == after
    resumed = Talker()
    made = do_jobs(engine(resumed), source, folder, PLAIN)
    # What was whole before the kill but not in the journal yet may be said once more: one line at most.
    assert 10 - after <= len(resumed.clauses) <= 10 - after + 1
    assert made.kept + len(made.files) == 10 and not made.problems
    assert sorted(path.name for path in folder.glob("*.wav")) == [f"{i:05}.wav" for i in range(1, 11)]
    assert all((folder / name).read_bytes() == data for name, data in there.items())
    assert not list(folder.glob(".*"))


# lists of jobs


def jobs_file(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "jobs.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def test_bad_lines_are_told_with_their_numbers_and_the_rest_is_done(tmp_path):
    source = jobs_file(
        tmp_path,
        {"text": "One two.", "file": "a/b.wav"},
        "nonsense\n",
        "\n",
        {"text": "Three.", "voice": "nobody"},
        {"text": "Four.", "style": {"speed": 2.0}},
    )
    told: list[str] = []
    speaker = Talker()
    made = do_jobs(
        engine(speaker), source, tmp_path / "out", PLAIN, on_problem=told.append, captions=("vtt",), workers=2
    )
    assert [says.partition(": ")[0] for says in told] == [f"{source}, line 2", f"{source}, line 4"]
    assert made.problems == told and "no voice named 'nobody'" in told[1]
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")) == [
        "00005.vtt",
        "00005.wav",
        "a/b.vtt",
        "a/b.wav",
        "jobs.jsonl.done",
    ]
    assert read_audio(tmp_path / "out/00005.wav", None).seconds == pytest.approx(0.05)


def test_lines_that_are_done_are_done_until_they_change(tmp_path):
    lines = [{"text": f"Number {i}.", "file": f"{i}.wav"} for i in range(4)]
    source = jobs_file(tmp_path, *lines)
    do_jobs(engine(), source, tmp_path / "out", PLAIN)
    speaker = Talker()
    assert do_jobs(engine(speaker), source, tmp_path / "out", PLAIN).kept == 4 and not speaker.clauses
    (tmp_path / "out/3.wav").unlink()  # a file that was taken away is made again
    lines[1]["text"] = "Something else."
    made = do_jobs(engine(speaker), jobs_file(tmp_path, *lines[::-1]), tmp_path / "out", PLAIN)
    assert sorted(spoken(speaker)) == ["Number 3.", "Something else."]
    assert made.kept == 2 and "has changed since" in made.notes[0]
    speaker = Talker()
    do_jobs(engine(speaker), source, tmp_path / "out", PLAIN, captions=("srt",))
    assert len(spoken(speaker)) == 4


def test_a_journal_that_was_torn(tmp_path):
    source = jobs_file(tmp_path, {"text": "One."}, {"text": "Two."})
    do_jobs(engine(), source, tmp_path / "out", PLAIN)
    journal = tmp_path / "out/jobs.jsonl.done"
    journal.write_bytes(journal.read_bytes()[:-9])
    speaker = Talker()
    made = do_jobs(engine(speaker), source, tmp_path / "out", PLAIN)
    assert made.kept == 1 and spoken(speaker) == ["Two."]
    assert do_jobs(engine(speaker), source, tmp_path / "out", PLAIN).kept == 2


def test_a_model_that_is_missing_ends_the_run(tmp_path):
    class Without(Talker):
        def speak(self, clause: Clause, **options) -> Iterator[Speech]:
            raise ModelMissing("stepaudio models pull x")
            yield

    source = jobs_file(tmp_path, *({"text": f"Number {i}."} for i in range(50)))
    with pytest.raises(ModelMissing):
        do_jobs(engine(Without()), source, tmp_path / "out", PLAIN, workers=2)
    assert not list((tmp_path / "out").glob("*.wav"))


def test_places_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("x")
    source = jobs_file(tmp_path, {"text": "One.", "file": "a.wav"}, {"text": "Two.", "file": "a.wav/b.wav"})
    with pytest.raises(ConfigError, match="cannot make the folder"):
        do_jobs(engine(), source, tmp_path / "file" / "out", PLAIN)
    with pytest.raises(ConfigError, match="cannot read"):
        do_jobs(engine(), tmp_path, tmp_path / "out", PLAIN)
    with pytest.raises(ConfigError, match="cannot make the folder"):
        aloud(Talker(), book("One."), tmp_path / "file/out", split=".wav")
    made = do_jobs(engine(), source, tmp_path / "out", PLAIN)
    assert [path.name for path in made.files] == ["a.wav"] and "cannot make the folder" in made.problems[0]


# threads


def test_work_is_done_by_threads_and_told_as_it_is_done():
    both, seen = threading.Barrier(2, timeout=10), list[int]()
    stop = threading.Event()
    for task in work(range(8), lambda task: both.wait(), 2, stop):
        seen.append(task)
    assert sorted(seen) == list(range(8)) and stop.is_set()


def test_an_error_stops_the_others():
    stop, begun = threading.Event(), list[int]()

    def do(task: int) -> None:
        begun.append(task)
        if task == 1:
            raise ValueError("one")
        assert stop.wait(10) or task == 0

    def tasks() -> Iterator[int]:
        yield from range(1000)

    with pytest.raises(ValueError, match="one"):
        list(work(tasks(), lambda task: None if task == 0 else do(task), 2, stop))
    assert len(begun) <= 5


def test_closing_stops_the_speaker_between_two_pieces(tmp_path):
    stop = threading.Event()
    reader = batch.Reader(engine(FakeSpeaker()), stop)
    marks: list[Mark] = []
    chunks = reader.say("one two three", PLAIN, marks)
    next(chunks)
    stop.set()
    with pytest.raises(batch.Stopped):
        next(chunks)


# subtitles


def test_cues_are_placed_and_fitted(tmp_path):
    cues = (
        Cue(500, 900, "One two."),  # 0.2 s of room until 1.0: fits
        Cue(1000, 1100, "a b c d e f g h i j"),  # 1 s for 0.92 s: faster by a little
        Cue(2000, 2100, "a b c d e f g h i j"),  # 1 s for 0.42 s: as fast as may be, and late after it
        Cue(2500, 2600, "Five."),
        Cue(4000, 4100, "Six."),
    )
    made = dub(
        engine(), cues, tmp_path / "a.wav", PLAIN, source="a", data=b"", captions=("json", "srt"), workers=2
    )
    starts = [s["start"] for s in json.loads((tmp_path / "a.json").read_text())["segments"]]
    assert starts == [0.5, 1.0, 2.0, pytest.approx(2.67, abs=0.005), 4.0]
    assert [note.split(":")[0] for note in made.notes] == [
        "cue 2 at 1.0 s",
        "cue 3 at 2.0 s",
        "cue 4 at 2.5 s",
    ]
    assert "1.50 times as fast" in made.notes[1] and "begins 0.2 s late" in made.notes[2]
    audio = read_audio(tmp_path / "a.wav", None)
    loud = np.abs(audio.samples) > 0.01
    assert [bool(loud[int(s * RATE)]) for s in (0.49, 0.51, 0.71, 1.01, 1.95, 2.01, 3.9, 4.01)] == [
        False,
        True,
        False,
        True,
        False,
        True,
        False,
        True,
    ]
    assert audio.seconds == pytest.approx(4.1)


def test_a_late_beginning_is_silent(tmp_path):
    made = dub(engine(), (Cue(3_600_000, 3_601_000, "x"),), tmp_path / "a.flac", PLAIN, source="a", data=b"")
    assert made.seconds == pytest.approx(3600.1) and (tmp_path / "a.flac").stat().st_size < 1_000_000


# captions


def test_captions_are_sentences_with_their_signs():
    text = "(happy) “Hello, you.” He said: no! 3 * 4 [1] is"
    words = [Mark(w, 100 * i, 100 * i + 90) for i, w in enumerate("Hello you He said no 3 4 1 is".split())]
    made = list(captions_of(text, words, 1000))
    assert [s.text for s in made] == ["“Hello, you.”", "He said: no!", "3 * 4 [1] is"]
    assert (made[1].start_ms, made[1].end_ms, made[1].words[0].text) == (1200, 1490, "He")


def test_captions_are_cut_at_commas_and_silences():
    text = "one two three four five six seven eight nine ten eleven twelve, " * 3
    words = [Mark(w.strip(","), 100 * i, 100 * i + 90) for i, w in enumerate(text.split())]
    assert [s.text for s in captions_of(text, words)] == [text.split(", ")[0] + ","] * 3
    apart = [Mark("a", 0, 100), Mark("b", 1100, 1200)]
    assert [s.text for s in captions_of("a b", apart)] == ["a", "b"]
    assert list(captions_of("", [])) == []


def test_captions_of_chinese_and_of_words_that_are_not_in_the_text():
    words = [Mark(c, 100 * i, 100 * i + 90) for i, c in enumerate("你好世界")]
    assert [s.text for s in captions_of("你好，世界。", words)] == ["你好，世界。"]
    assert [s.text for s in captions_of("abc", [Mark("x", 0, 1), Mark("abc", 1, 2)])] == ["abc"]


def test_keys_tell_everything_apart():
    reader = batch.Reader(engine(), threading.Event())
    pieces = [Piece("a")]
    other = Engine(config.load(None, {}, {"tts.speed": 1.1}).config)
    keys = {
        reader.key(pieces, PLAIN),
        reader.key([Piece("b")], PLAIN),
        reader.key([Piece("a", 1)], PLAIN),
        reader.key([Piece("a", slot_ms=1)], PLAIN),
        reader.key(pieces, Manner(voice="hibari")),
        reader.key(pieces, Manner(language="en")),
        batch.Reader(other, threading.Event()).key(pieces, PLAIN),
    }
    assert len(keys) == 7 and reader.key(pieces, PLAIN) in keys
    threads = Engine(config.load(None, {}, {"tts.threads": 7}).config)
    assert batch.Reader(threads, threading.Event()).key(pieces, PLAIN) == reader.key(pieces, PLAIN)
    assert Said(1, 2, 3, ()).faster == 1
