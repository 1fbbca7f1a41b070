"""The command line with fakes at the engine's edges: what is printed where, and exit statuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from stepaudio import cli, config
from stepaudio.cli import speech
from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import BackendError
from stepaudio.core.style import SpeechStyle
from stepaudio.engine import Engine
from stepaudio.files import WRITES, write_audio
from tests.fakes import FakeLLM, FakeRecognizer, FakeSpeaker

LOUD = np.full(16_000, 0.1, np.float32)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPAUDIO_MODELS__ROOT", str(tmp_path / "models"))
    write_audio(tmp_path / "question.wav", [AudioChunk(LOUD, 16_000)])
    return tmp_path


@pytest.fixture
def fakes(here, monkeypatch):
    """Puts fakes into every engine that the command line builds; set its items to change them."""
    parts = {
        "llm": FakeLLM("It is ", "a test."),
        "recognizer": FakeRecognizer("what is it?"),
        "speaker": FakeSpeaker(mute="!🙂"),
    }

    def build(loaded: config.Config) -> Engine:
        engine = Engine(loaded)
        engine.__dict__ |= parts
        return engine

    monkeypatch.setattr("stepaudio.engine.Engine", build)
    return parts


def run(*arguments: str) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as exit:
        return int(exit.code or 0)


def test_ask_prints_both_sides_a_table_and_writes_the_answer(fakes, here, capsys):
    assert run("ask", "question.wav") == 0
    out = capsys.readouterr().out
    assert "You said (en): what is it?" in out and "Answer: It is a test." in out
    assert "understood what was said" in out and "100%" in out and "answer.wav: 0.4 s of speech" in out
    with wave.open("answer.wav") as answer:
        assert (answer.getframerate(), answer.getnchannels(), answer.getnframes()) == (24_000, 1, 9_600)


def test_ask_looks_at_the_file_before_it_loads_models(fakes, here, capsys, monkeypatch):
    monkeypatch.setattr(Engine, "warm", lambda self: pytest.fail("models were loaded"))
    assert cli.main(["ask", "missing.wav"]) == 1
    assert "no such file" in capsys.readouterr().err


def test_ask_json_is_one_object_and_nothing_else(fakes, here, capsys):
    assert run("ask", "question.wav", "-o", "a.wav", "--json") == 0
    said = capsys.readouterr()
    shown = json.loads(said.out)
    assert list(shown) == ["transcript", "language", "answer", "audio", "timings_ms"]
    assert (shown["transcript"], shown["answer"], shown["audio"]) == ("what is it?", "It is a test.", "a.wav")
    assert shown["timings_ms"]["first_audio"] >= 0


def test_a_model_that_fails_mid_answer_keeps_the_audio_and_exits_1(fakes, here, capsys):
    fakes["llm"] = FakeLLM("One two. ", "Three", BackendError("the line dropped"))
    assert run("ask", "question.wav", "--json") == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["audio"] == "answer.wav" and Path("answer.wav").is_file()
    assert "stepaudio: the line dropped" in said.err


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["ask", "missing.wav"], 1, "missing.wav"),
        (["ask", "question.wav", "-o", "no/such/folder/a.wav"], 2, "folder"),
        (["ask", "question.wav", "-o", "a.xyz"], 2, ".wav"),
        (["ask", "question.wav", "--language", "fr"], 2, "recognition.language"),
        (["ask"], 2, "FILE"),
        (["nothing"], 2, "invalid choice"),
        ([], 2, "COMMAND"),
        (["say", "x", "--set", "tts.sped=1"], 2, "did you mean tts.speed"),
        (["say", "x", "--set", "tts"], 2, "section.key=value"),
        (["say", "x", "--speed", "9"], 2, "tts.speed from flag"),
        (["say", "x", "--config", "none.toml"], 2, "none.toml"),
        (["say", "!!! 🙂"], 1, "nothing in the text"),
        (["say", "x", "--language", "klingon"], 2, "no language named 'klingon'"),
        (["models", "path", "whisper"], 2, "did you mean whisper-base"),
        (["models", "path", "whisper-base"], 1, "stepaudio models pull whisper-base"),
        (["bench", "turn", "--data", "."], 2, "MANIFEST.jsonl"),
        (["bench", "asr", "--limit", "0"], 2, "'0' is no number from 1 up"),
        (["voices", "list", "--language", "xx"], 2, "stepaudio voices list"),
        (["sing", "--rap", "verse.txt", "--show"], 2, "--show is for scores"),
        (["sing", "--rap", "verse.txt", "--transpose", "0"], 2, "--transpose is for scores"),
        (["sing", "--rap", "verse.txt", "--verse", "2"], 2, "--verse is for scores"),
        (["sing", "--rap", "verse.txt", "--accompany", "chords"], 2, "--accompany beat"),
        (["sing", "--rap", "song.mid"], 2, "is a score"),
    ],
)
def test_bad_usage_says_what_to_do_and_writes_nothing(fakes, here, capsys, arguments, status, says):
    before = sorted(here.rglob("*.*"))
    assert run(*arguments) == status
    said = capsys.readouterr()
    assert says in said.err
    assert "Traceback" not in said.err
    assert sorted(here.rglob("*.*")) == before


def test_say_writes_a_file_and_reads_standard_input(fakes, here, capsys, monkeypatch):
    assert run("say", "One two three.", "-o", "three.wav") == 0
    assert "three.wav: 0.3 s of speech" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", Path(__file__).open())  # noqa: SIM115 - as a pipe is
    assert run("say", "-", "-o", "long.flac") == 0
    assert Path("long.flac").read_bytes()[:4] == b"fLaC"


def test_say_writes_captions_beside(fakes, here, capsys):
    assert run("say", "One two. Three.", "-o", "a.mp3", "--captions", "srt,json") == 0
    assert Path("a.srt").read_text().splitlines()[2] == "One two. Three."
    assert len(json.loads(Path("a.json").read_text())["segments"][0]["words"]) == 3


def test_say_hands_the_style_on(fakes, here, capsys):
    asked = ("--emotion", "高兴", "--intensity", "3", "--pitch", "2", "--volume", "-3", "--whisper")
    assert run("say", "Hello.", *asked, "--dialect", "en-GB", "--speed", "1.2") == 0
    assert fakes["speaker"].clauses[0].style == SpeechStyle(
        "happy", 3, "en-GB", "whisper", speed=1.2, pitch=2, volume=-3
    )


def test_say_reads_books_subtitles_and_jobs(fakes, here, capsys):
    Path("book.md").write_text("# A\n\nOne.\n\n# B\n\nTwo.")
    assert run("say", "-f", "book.md") == 0
    assert Path("book.mp3").read_bytes()[:3] == b"ID3" and not Path("book.mp3.parts").exists()
    assert "book.mp3: 5.6 s of speech" in capsys.readouterr().out
    assert run("say", "-f", "book.md", "--split", "--format", "flac") == 0
    assert sorted(path.name for path in Path("book").iterdir()) == ["001 A.flac", "002 B.flac", "book.m3u8"]
    Path("talk.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello there.\n")
    assert run("say", "-f", "talk.srt", "--captions", "vtt") == 0
    assert "00:00:01.000 --> 00:00:01.200\nHello there." in Path("talk.vtt").read_text()
    Path("list.jsonl").write_text('{"text": "One."}\nnonsense\n{"text": "Two.", "file": "two.opus"}\n')
    capsys.readouterr()
    assert run("say", "-f", "list.jsonl", "-o", "out", "--format", "flac") == 1
    said = capsys.readouterr()
    assert "list.jsonl, line 2: it is not JSON" in said.err and "1 could not be said" in said.err
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "00001.flac",
        "list.jsonl.done",
        "two.opus",
    ]
    assert run("say", "-f", "list.jsonl", "-o", "out", "--format", "flac") == 1
    assert "2 lines were done before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 2, "say what?"),
        (["x", "-f", "a.txt"], 2, "cannot be said at once"),
        (["x", "--from-plan", "a.txt"], 2, "cannot be said at once"),
        (["a.txt"], 2, "put -f before it"),
        (["-f", "none.txt"], 2, "no file none.txt"),
        (["-f", "-"], 2, "--type"),
        (["-f", "-", "--type", "text"], 2, "reads a pipe"),
        (["-f", "question.wav"], 2, "--type"),
        (["-f", "a.txt", "-o", "-"], 2, "name it with -o"),
        (["-f", "a.txt", "-o", "a.xyz"], 2, ".wav"),
        (["-f", "a.txt", "--split", "-o", "a.srt"], 2, "is a file"),
        (["-f", "a.txt", "--split", "-o", "a.Mp3"], 2, "--split makes a folder, and a.Mp3 looks like a file"),
        (["-f", "a.txt", "--type", "jobs", "-o", "question.wav"], 2, "--format wav"),
        (["-f", "a.txt", "--show", "spoken"], 2, "--show"),
        (["-f", "a.srt", "--split"], 2, "that have chapters"),
        (["-f", "a.srt", "-o", "a.wav", "--captions", "srt"], 2, "written over a.srt"),
        (["-f", "a.txt", "--type", "epub"], 1, "no EPUB"),
        (["-f", "a.txt", "--type", "subtitles"], 1, "no cues"),
        (["-f", "a.txt", "--jobs", "0"], 2, "no number from 1 up"),
        (["x", "--captions", "doc"], 2, "srt, vtt, json"),
        (["x", "--captions", "srt", "-o", "-"], 2, "files beside another"),
        (["x", "--split"], 2, "name one with -f"),
        (["x", "--emotion", "hapy"], 2, "did you mean happy"),
        (["x", "--intensity", "2"], 1, "name the emotion"),
        (["x", "--pitch", "40"], 1, "from -7 to 7 semitones"),
        (["x", "--volume", "nan"], 1, "from -24 to 12 dB"),
        (["--from-plan", "none.json"], 2, "no such file"),
        (["--from-plan", "a.txt"], 1, "the plan is not JSON"),
        (["--from-plan", "a.txt", "--speed", "2"], 2, "change it there"),
        (["x", "--plan", "no/folder/p.json"], 2, "no folder"),
    ],
)
def test_bad_usage_of_say(fakes, here, capsys, arguments, status, says):
    Path("a.txt").write_text("Words.")
    Path("a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello.\n")
    before = sorted(here.rglob("*.*"))
    assert run("say", *arguments) == status
    assert says in capsys.readouterr().err
    assert sorted(here.rglob("*.*")) == before


def test_a_file_of_which_nothing_can_be_said_is_an_error(fakes, here, capsys):
    Path("a.txt").write_text("Oh!")
    before = sorted(here.rglob("*.*"))
    fakes["speaker"] = FakeSpeaker(mute="Oh!")
    assert run("say", "-f", "a.txt", "-o", "a.wav") == 1
    said = capsys.readouterr()
    assert "nothing of a.txt can be said, so no audio was written" in said.err and "speech" not in said.out
    assert sorted(here.rglob("*.*")) == before


def test_formats_of_files_are_those_that_can_be_written():
    assert [f".{name}" for name in speech.FORMATS] == list(WRITES)


def test_control_c_while_a_file_is_read_says_how_to_go_on(fakes, here, capsys, monkeypatch):
    class Interrupted(FakeSpeaker):
        def speak(self, clause, **options):
            if len(self.clauses) == 3:
                signal.raise_signal(signal.SIGINT)
            yield from super().speak(clause, **options)

    Path("list.jsonl").write_text("".join(f'{{"text": "Number {i}."}}\n' for i in range(9)))
    fakes["speaker"] = Interrupted()
    assert run("say", "-f", "list.jsonl", "--jobs", "1") == 130
    assert "of 9 lines) is kept: the same command goes on from there" in capsys.readouterr().err
    there = len(list(Path("list").glob("*.wav")))
    assert there < 9 and not list(Path("list").glob(".*"))
    fakes["speaker"] = FakeSpeaker()
    assert run("say", "-f", "list.jsonl") == 0
    assert len(list(Path("list").glob("*.wav"))) == 9 and len(fakes["speaker"].clauses) == 9 - there


def test_transcribe_formats(fakes, here, capsys):
    assert run("transcribe", "question.wav") == 0
    assert capsys.readouterr().out == "what is it?\n"
    assert run("transcribe", "question.wav", "--json", "--language", "en", "--fast", "--words") == 0
    assert json.loads(capsys.readouterr().out)["language"] == "en"
    assert fakes["recognizer"].calls[-1][1] | {"on_progress": None} == {
        "language": "en",
        "mode": "fast",
        "words": True,
        "on_progress": None,
    }
    assert run("transcribe", "question.wav", "-f", "vtt", "-o", "talk.vtt") == 0
    assert Path("talk.vtt").read_text().startswith("WEBVTT")


def test_silence_transcribes_to_nothing_and_says_so(fakes, here, capsys):
    fakes["recognizer"] = FakeRecognizer("")
    assert run("transcribe", "question.wav") == 0
    said = capsys.readouterr()
    assert said.out == "" and "no speech was heard" in said.err


def test_models_list_and_doctor_without_any_model(here, capsys):
    assert run("models", "list", "--json") == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["whisper-base"]["here"] == "needed" and rows["whisper-base"]["licence"] == "MIT"
    assert run("models", "list") == 0
    assert "kokoro-82m" in capsys.readouterr().out
    assert run("doctor", "--json") == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["settings"]["models.root"]["from"] == "STEPAUDIO_MODELS__ROOT"
    assert any("stepaudio models pull" in finding["says"] for finding in shown["findings"])


def test_voices_list(here, capsys):
    assert run("voices", "list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 55 and {row["licence"] for row in rows} == {"Apache-2.0"}
    assert run("voices", "list", "--language", "zh") == 0
    out = capsys.readouterr().out
    assert "zf_xiaobei" in out and "af_heart" not in out


def test_help_of_every_command_has_an_example(capsys):
    for command in (
        ["ask"],
        ["say"],
        ["transcribe"],
        ["voices", "list"],
        ["models", "pull"],
        ["bench", "asr"],
        ["doctor"],
    ):
        assert run(*command, "--help") == 0
        out = capsys.readouterr().out
        assert f"stepaudio {' '.join(command)}" in out.split("examples:")[1]


def test_control_c_is_not_a_traceback(fakes, here, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fakes["recognizer"], "transcribe", interrupt)
    assert run("transcribe", "question.wav", "-o", "talk.txt") == 130
    assert not Path("talk.txt").exists() and "Traceback" not in capsys.readouterr().err


def test_as_a_module_and_a_reader_that_goes_away(here):
    command = [sys.executable, "-m", "stepaudio"]
    assert subprocess.run([*command, "--version"], capture_output=True, text=True).stdout.startswith(
        "stepaudio "
    )
    with subprocess.Popen(
        [*command, "models", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("arguments", [["models", "list"], ["models", "list", "--json"]])
def test_a_full_disk_behind_standard_output_is_told(here, arguments):
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "stepaudio", *arguments], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.decode().strip() == "stepaudio: cannot write: No space left on device"
