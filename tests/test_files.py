"""Audio files read and written: every format, bad input of every kind, whole or not at all."""

from __future__ import annotations

import errno
import io
import logging
import os
import random
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
import soundfile

from stepaudio import containers, files
from stepaudio.containers import ChapterMark, Tags
from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import AudioError, ConfigError, StepAudioError
from stepaudio.files import check_writable, read_audio, whole_file, write_audio, write_text
from tests.test_containers import encoded, ogg_packets, webm

DATA = Path(__file__).parent / "data"
FIXTURES = {"tone.m4a": 1.0, "tone.mp4": 1.0, "tone-alac.m4a": 0.25, "tone.webm": 1.0}
RATE = 16_000


def tone(seconds: float = 1, rate: int = RATE) -> np.ndarray:
    """The sound of the files in tests/data."""
    t = np.arange(int(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * 440 * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def encode(sound: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    channels = sound.shape[1] if sound.ndim > 1 else 1
    with soundfile.SoundFile(out, "w", rate, channels, subtype, format=kind) as file:
        for at in range(0, len(sound), rate):  # libsndfile's Vorbis encoder crashes on long pieces
            file.write(sound[at : at + rate])
    return out.getvalue()


def assert_same(chunk: AudioChunk, wanted: np.ndarray, error: float, late: int = 0) -> None:
    """The samples are those wanted, up to a relative RMS error; up to ``late`` more may be at either end."""
    assert chunk.rate == RATE and chunk.samples.dtype == np.float32 and chunk.samples.ndim == 1
    assert len(wanted) <= len(chunk.samples) + 2 and len(chunk.samples) <= len(wanted) + 2 * late + 2
    size = len(wanted) - late - 4
    errors = [chunk.samples[lag : lag + size] - wanted[:size] for lag in range(late + 1)]
    assert min(np.sqrt(np.mean(e**2)) for e in errors) <= error * np.sqrt(np.mean(wanted**2))


# --- formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "subtype", "error"),
    [
        ("WAV", "PCM_U8", 0.05),
        ("WAV", "PCM_16", 1e-3),
        ("WAV", "PCM_24", 1e-4),
        ("WAV", "PCM_32", 1e-4),
        ("WAV", "FLOAT", 1e-6),
        ("WAV", "DOUBLE", 1e-6),
        ("WAV", "ULAW", 0.05),
        ("WAV", "ALAW", 0.05),
        ("W64", "PCM_16", 1e-3),
        ("RF64", "PCM_16", 1e-3),
        ("AIFF", "PCM_16", 1e-3),
        ("AU", "PCM_16", 1e-3),
        ("CAF", "PCM_16", 1e-3),
        ("FLAC", "PCM_16", 1e-3),
        ("FLAC", "PCM_24", 1e-4),
        ("OGG", "VORBIS", 0.1),
        ("OGG", "OPUS", 0.1),
        ("MP3", "MPEG_LAYER_III", 0.1),
    ],
)
def test_formats_of_libsndfile(kind, subtype, error):
    assert_same(read_audio(encode(tone(), kind=kind, subtype=subtype)), tone(), error)


@pytest.mark.parametrize(("name", "seconds"), FIXTURES.items())
def test_formats_that_are_repacked(name, seconds):
    late = 0 if "alac" in name else 720  # the AAC files carry no edit list: their encoder's delay is heard
    assert_same(read_audio(DATA / name), tone(seconds), 0.2, late)


@pytest.mark.parametrize("subtype", ["OPUS", "VORBIS"])
def test_webm_is_as_good_as_ogg(subtype):
    data = encoded(subtype)
    packets = ogg_packets(data)
    setup, skip = packets[0], 2
    if subtype == "VORBIS":
        setup, skip = b"\2" + bytes([len(packets[0]), len(packets[1])]) + b"".join(packets[:3]), 3
    again = read_audio(webm(packets[skip:], f"A_{subtype}", setup, unknown=True))
    whole = read_audio(data)
    size = len(whole.samples) - 100  # the last packet is cut short in Ogg only
    np.testing.assert_allclose(again.samples[:size], whole.samples[:size], atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000])
def test_rates(rate):
    assert_same(read_audio(encode(tone(1, rate), rate)), tone(), 1e-3)


def test_a_rate_can_be_chosen():
    assert read_audio(encode(tone()), 24_000).samples.shape == (24_000,)


def test_what_lies_above_the_band_is_gone():
    hiss = 0.5 * np.sin(2 * np.pi * 15_000 * np.arange(48_000) / 48_000)
    assert np.abs(read_audio(encode(hiss, 48_000)).samples[200:-200]).max() < 1e-3


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 8])
def test_channels_become_their_mean(channels):
    gains = np.linspace(0.2, 1, channels)
    wanted = tone() * float(gains.mean())
    assert_same(read_audio(encode(tone()[:, None] * gains, kind="WAVEX")), wanted, 1e-3)


def test_a_dead_channel_takes_nothing_away():
    assert_same(read_audio(encode(np.stack([tone(), 1e-4 * tone()], axis=1))), tone(), 2e-3)


def test_long_files_are_seamless():
    """Longer than one block of decoding, resampling or AAC."""
    sound = tone(50, 48_000)
    assert_same(read_audio(encode(sound, 48_000, "FLAC")), tone(50), 1e-3)
    track = containers.mp4(io.BytesIO((DATA / "tone.mp4").read_bytes()))
    packets = list(track.packets)
    config = containers.aac_config(track.setup)
    steady = packets[20:22] * 100  # a loop: every second packet must come out the same, also across blocks
    samples = read_audio(containers.to_adts(config, steady), config.rate).samples.reshape(-1, 2048)
    np.testing.assert_allclose(samples[1:], np.tile(samples[1], (99, 1)), atol=1e-6)


def test_he_aac_is_read_as_its_core():
    """A fill element with SBR data in each packet, as HE-AAC has it, changes nothing (14496-3, 4.5.2.8)."""
    track = containers.mp4(io.BytesIO((DATA / "tone.mp4").read_bytes()))
    config, packets = containers.aac_config(track.setup), list(track.packets)
    extended = []
    for packet in packets:
        bits = "110" + "1010" + "1101" + "01" * 38 + "".join(f"{byte:08b}" for byte in packet)
        bits += "0" * (-len(bits) % 8)
        extended.append(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    plain = read_audio(containers.to_adts(config, packets))
    np.testing.assert_array_equal(read_audio(containers.to_adts(config, extended)).samples, plain.samples)


def test_an_edit_list_cuts_the_delay(monkeypatch):
    real = containers.mp4

    def delayed(file):
        track = real(file)
        return containers.Track(track.codec, track.setup, track.packets, skip_s=0.5)

    whole = read_audio(DATA / "tone.mp4", 48_000).samples
    monkeypatch.setattr(containers, "mp4", delayed)
    np.testing.assert_array_equal(read_audio(DATA / "tone.mp4", 48_000).samples, whole[24_000:])


# --- sources --------------------------------------------------------------------------------------


class Bits(io.RawIOBase):
    """Bytes that come in bits, and cannot be sought."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        part = self.data.read(min(len(buffer), 1000))
        buffer[: len(part)] = part
        return len(part)


def pipe(data: bytes) -> BinaryIO:
    return cast(BinaryIO, Bits(data))


@pytest.mark.parametrize("name", ["x.mp3", "x", "x.raw", "声音.wav"])
def test_the_name_means_nothing(tmp_path, name):
    (tmp_path / name).write_bytes(encode(tone(), kind="FLAC"))
    assert_same(read_audio(tmp_path / name), tone(), 1e-3)
    assert_same(read_audio(str(tmp_path / name)), tone(), 1e-3)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "OGG", "tone.m4a", "tone.webm"])
def test_pipes_and_open_files(kind, tmp_path, monkeypatch):
    data = (DATA / kind).read_bytes() if "." in kind else encode(tone(), kind=kind)
    wanted = read_audio(data).samples
    np.testing.assert_array_equal(read_audio(pipe(data)).samples, wanted)
    file = io.BytesIO(b"before" + data)
    file.seek(6)
    np.testing.assert_array_equal(read_audio(file).samples, wanted)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=pipe(data), isatty=lambda: False))
    np.testing.assert_array_equal(read_audio("-").samples, wanted)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=pipe(data), isatty=lambda: False))
    np.testing.assert_array_equal(read_audio(Path("-")).samples, wanted)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(data,))
    writer.start()
    np.testing.assert_array_equal(read_audio(fifo).samples, wanted)
    writer.join()


def test_wav_streams_without_a_length():
    for riff, length in ((0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFFFFF, 0x7FFFFFDB)):
        data = bytearray(encode(tone()))
        struct.pack_into("<I", data, 4, riff)
        struct.pack_into("<I", data, 40, length)
        assert_same(read_audio(bytes(data)), tone(), 1e-3)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello", "not an audio file.*wav, flac, mp3"),
        (b"%PDF-1.7 and so on" * 99, "not an audio file"),
        (b"RIFF\x10\0\0\0AVI LIST" + bytes(99), "not an audio file"),
        (bytes(5000), "not an audio file"),
        (b"RIFF\x10\0\0\0WAVE", "damaged"),
        (b"OggS" + bytes(100), "damaged"),
        (b"fLaC" + bytes(100), "damaged"),
        (b"ID3\4\0\0\0\0\0\x10" + bytes(100), "damaged"),
        (b"\x1a\x45\xdf\xa3" + bytes(100), "cannot be read"),
        (b"\0\0\0\x18ftypM4A " + bytes(100), "no sound track, or was cut off before its index"),
        (b"\xff\xf1" + bytes(100), "no AAC"),
        (encode(np.zeros(0)), "length is zero"),
        (encode(np.zeros((100, 9)), kind="WAVEX"), "9 channels; at most 8"),
        (encode(tone(1, 4000), 4000), "4000 Hz; 8000 to 192000"),
        (encode(tone(1, 384_000), 384_000), "384000 Hz"),
        (encode(np.full(100, np.nan), subtype="FLOAT"), "100% of its samples"),
    ],
)
def test_what_is_not_audio_is_said_so(data, message, tmp_path):
    with pytest.raises(AudioError, match=message):
        read_audio(data)
    (tmp_path / "this.wav").write_bytes(data)
    with pytest.raises(AudioError, match=r"this\.wav.*" + message):
        read_audio(tmp_path / "this.wav")


def test_files_that_cannot_be_opened(tmp_path, monkeypatch):
    for path, message in (
        (tmp_path / "none.wav", "no such file"),
        (tmp_path, "folder"),
        (tmp_path / "x\0y", "null"),
        ("/dev/null", "device"),
    ):
        with pytest.raises(AudioError, match=message):
            read_audio(path)

    def deny(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(AudioError, match="permissions"):
        read_audio(tmp_path / "x.wav")


def test_a_terminal_is_no_pipe(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(), isatty=lambda: True))
    with pytest.raises(AudioError, match="nothing is piped"):
        read_audio("-")


def test_a_pipe_has_a_bound(monkeypatch):
    monkeypatch.setattr(files, "PIPE_BYTES", 1 << 30)

    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return bytes(size)

    endless = Endless()
    monkeypatch.setattr(files, "PIPE_BYTES", 1 << 22)
    with pytest.raises(AudioError, match="save it"):
        read_audio(cast(BinaryIO, endless))
    assert endless.given <= 6 << 20


def test_a_full_disk_while_a_pipe_is_kept(monkeypatch):
    def full(*_: object, **__: object):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.tempfile.SpooledTemporaryFile, "write", full)
    with pytest.raises(AudioError, match="disk is full"):
        read_audio(pipe(encode(tone())))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "OGG", "AAC", "WEBM"])
def test_the_limit_holds_and_says_its_name(kind):
    if kind == "AAC":
        track = containers.mp4(io.BytesIO((DATA / "tone.mp4").read_bytes()))
        data = containers.to_adts(containers.aac_config(track.setup), list(track.packets) * 5)
    elif kind == "WEBM":
        packets = ogg_packets(encoded("OPUS", 5))
        data = webm(packets[2:], "A_OPUS", packets[0])
    else:
        data = encode(tone(5), kind=kind)
    with pytest.raises(AudioError, match=r"longer than 2 seconds.*audio\.limit_s"):
        read_audio(data, limit_s=2)
    assert read_audio(data, limit_s=5.1).seconds >= 4.9


def test_a_small_file_cannot_eat_the_machine():
    """Many minutes of silence, which pack well: the memory taken is that of the limit."""
    packets = ogg_packets(encoded("OPUS", 1))
    bombs = [
        webm([b"\xf8\xff\xfe"] * 20_000, "A_OPUS", packets[0]),  # 400 s in 20 ms each
        encode(np.zeros(RATE * 1200, np.int16), kind="FLAC", subtype="PCM_16"),
    ]
    for bomb in bombs:
        tracemalloc.start()
        try:
            with pytest.raises(AudioError, match="longer than 10 seconds"):
                read_audio(bomb, limit_s=10)
            assert tracemalloc.get_traced_memory()[1] < 32 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "OGG", "tone.mp4", "tone.webm"])
def test_a_cut_file_is_read_as_far_as_it_goes(kind, caplog):
    noise = 0.02 * np.random.default_rng(0).standard_normal(10 * RATE).astype(np.float32)
    data = (DATA / kind).read_bytes() if "." in kind else encode(tone(10) + noise, kind=kind)
    whole = read_audio(data)
    with caplog.at_level(logging.WARNING):
        part = read_audio(data[: len(data) * 6 // 10])
    assert 0.3 * whole.seconds < part.seconds < 0.75 * whole.seconds
    size = len(part.samples) - 2000
    np.testing.assert_allclose(part.samples[:size], whole.samples[:size], atol=2e-3)
    assert (
        kind == "OGG" or "early" in caplog.text or "comes before" in caplog.text or "only its" in caplog.text
    )


def test_damage_in_aac_costs_only_its_packet(caplog):
    track = containers.mp4(io.BytesIO((DATA / "tone.mp4").read_bytes()))
    config, packets = containers.aac_config(track.setup), list(track.packets)
    whole = read_audio(containers.to_adts(config, packets), config.rate).samples
    packets[20] = packets[20][:5]
    with caplog.at_level(logging.WARNING):
        part = read_audio(containers.to_adts(config, packets), config.rate).samples
    assert "1 of" in caplog.text
    same = np.abs(part - whole).reshape(-1, 1024).max(axis=1) < 1e-3
    assert np.flatnonzero(~same).tolist() == [0, 20, 21]  # each packet overlaps the next; nothing is before 0


def test_a_missing_aac_decoder_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "sphn", None)
    with pytest.raises(AudioError, match="pip install sphn"):
        read_audio(DATA / "tone.m4a")


def test_samples_that_are_no_numbers(caplog):
    sound = tone()
    sound[100:140], sound[500], sound[900] = np.nan, np.inf, -1e30
    with caplog.at_level(logging.WARNING):
        got = read_audio(encode(sound, subtype="FLOAT")).samples
    assert "42 samples" in caplog.text
    wanted = np.nan_to_num(np.where(np.abs(sound) > 1, 0, sound), nan=0)
    np.testing.assert_array_equal(got, wanted)


def test_floats_beyond_one():
    sound = tone()
    np.testing.assert_allclose(  # integers written as floats
        read_audio(encode(sound * 30_000, subtype="FLOAT")).samples, sound / np.abs(sound).max(), atol=0.01
    )
    spike = sound.copy()
    spike[3000] = 1e6
    got = read_audio(encode(spike, subtype="FLOAT")).samples
    assert got[3000] == 1
    np.testing.assert_array_equal(np.delete(got, 3000), np.delete(sound, 3000))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(4))
def test_nothing_but_audio_errors_comes_out(seed):
    """Cut, overwritten and shifted files of all kinds: sound, or an AudioError."""
    dice = random.Random(seed)
    samples = [(DATA / name).read_bytes() for name in FIXTURES]
    samples += [encode(tone(), kind=kind) for kind in ("WAV", "FLAC", "MP3", "OGG", "AIFF")]
    packets = ogg_packets(encoded("OPUS"))
    samples += [webm(packets[2:], "A_OPUS", packets[0], "ebml"), webm(packets[2:], "A_AAC", b"\x12\x10")]
    outcomes = set()
    for _ in range(150):
        data = bytearray(dice.choice(samples))
        kind = dice.randrange(4)
        if kind == 0:
            del data[dice.randrange(len(data)) :]
        elif kind == 1:
            for _ in range(dice.randrange(1, 20)):
                data[dice.randrange(len(data))] = dice.randrange(256)
        elif kind == 2:  # in the headers
            for _ in range(dice.randrange(1, 6)):
                data[dice.randrange(min(len(data), 600))] = dice.choice((0, 1, 127, 128, 255))
        else:
            at = dice.randrange(len(data))
            data[at : at + dice.randrange(100)] = dice.randbytes(dice.randrange(100))
        try:
            chunk = read_audio(bytes(data), limit_s=30)
        except AudioError as error:
            assert str(error).startswith("the audio ")
            outcomes.add("error")
        else:
            assert np.isfinite(chunk.samples).all() and np.abs(chunk.samples).max(initial=0) <= 1
            outcomes.add("sound")
    assert outcomes == {"error", "sound"}


# --- writing --------------------------------------------------------------------------------------


def chunks(sound: np.ndarray, rate: int = 24_000, size: int = 1000) -> Iterator[AudioChunk]:
    for at in range(0, len(sound), size):
        yield AudioChunk(sound[at : at + size], rate, at)


@pytest.mark.parametrize(
    ("ending", "error"), [("wav", 1e-3), ("flac", 1e-3), ("ogg", 0.1), ("opus", 0.1), ("mp3", 0.1)]
)
def test_what_is_written_is_read(tmp_path, ending, error):
    path = tmp_path / f"out.{ending.upper()}"
    write_audio(path, chunks(tone(2, 24_000)))
    assert_same(read_audio(path), tone(2), error)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ["opus", "mp3"])
def test_rates_that_a_codec_has_not(tmp_path, ending):
    write_audio(tmp_path / f"out.{ending}", chunks(tone(1, 20_000), 20_000))
    assert_same(read_audio(tmp_path / f"out.{ending}"), tone(1), 0.1)


def test_wav_is_exact_and_of_16_bit(tmp_path):
    sound = np.concatenate([tone(), [2, -2]]).astype(np.float32)
    write_audio(tmp_path / "out.wav", chunks(sound, RATE))
    got, rate = soundfile.read(tmp_path / "out.wav", dtype="int16")
    assert rate == RATE and (tmp_path / "out.wav").stat().st_size == 44 + 2 * len(sound)
    np.testing.assert_array_equal(got, np.clip(np.rint(sound * 32768), -32768, 32767))


def run(code: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    """Runs code that writes nine chunks."""
    head = "import sys, numpy as np\nfrom stepaudio.files import *\n"
    head += "chunks = [AudioChunk(np.zeros(99_999, 'f4'), 16_000)] * 9\n"
    return subprocess.run(
        [sys.executable, "-c", head + code], stdout=stdout, stderr=subprocess.PIPE, check=False
    )


def test_standard_output_is_a_stream():
    data = run("write_audio('-', chunks)").stdout
    assert data[:4] == b"RIFF" and data[4:8] == data[40:44] == b"\xff" * 4
    assert read_audio(data).samples.shape == (899_991,)
    assert run("write_text('-', '你好')").stdout.decode() == "你好"


def test_a_reader_that_leaves_early():
    reading, writing = os.pipe()
    os.close(reading)
    done = run(
        "try:\n write_audio('-', chunks)\nexcept StepAudioError as e:\n sys.stderr.write(str(e))", writing
    )
    os.close(writing)
    assert done.returncode == 0 and done.stderr == b"cannot write -: the program that reads it has ended"


def test_a_named_pipe_stays_a_pipe(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    got = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    write_audio(fifo, chunks(tone(), RATE))
    reader.join()
    assert fifo.is_fifo() and read_audio(got[0]).samples.shape == (RATE,)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ValueError("a bug"), StepAudioError("the model fell over")]
)
def test_nothing_is_left_of_what_failed(tmp_path, ending, error):
    path = tmp_path / f"out.{ending}"
    path.write_bytes(b"the old one")

    def failing() -> Iterator[AudioChunk]:
        yield from chunks(tone(), RATE)
        raise error

    with pytest.raises(type(error)):
        write_audio(path, failing())
    assert path.read_bytes() == b"the old one" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ["wav", "flac", "txt"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk(tmp_path, monkeypatch, ending, call):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if call == "fsync" else Path, call, full)
    path = tmp_path / f"out.{ending}"
    with pytest.raises(StepAudioError, match="disk is full"):
        write_text(path, "words") if ending == "txt" else write_audio(path, chunks(tone(), RATE))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_device():
    with pytest.raises(StepAudioError, match="disk is full"):
        write_audio("/dev/full", chunks(tone(), RATE))
    with pytest.raises(StepAudioError, match="disk is full"):
        write_text("/dev/full", "words")


@pytest.mark.parametrize("name", ["no/such/out.wav", ".", "out.doc", "out", "x\0.wav"])
def test_places_that_cannot_be(tmp_path, name):
    for attempt in (
        lambda: write_audio(f"{tmp_path}/{name}", chunks(tone())),
        lambda: check_writable(f"{tmp_path}/{name}", files.WRITES),
    ):
        with pytest.raises(ConfigError, match="cannot write"):
            attempt()
    assert not list(tmp_path.iterdir())


def test_places_that_are_closed(tmp_path, monkeypatch):
    with pytest.raises(StepAudioError, match="cannot write"):
        write_audio(tmp_path / ("x" * 300 + ".wav"), chunks(tone()))
    path = tmp_path / "out.wav"
    check_writable(path)
    check_writable("-", files.WRITES)
    path.write_bytes(b"mine")
    monkeypatch.setattr(os, "access", lambda *_: False)
    for attempt in (lambda: write_audio(path, chunks(tone())), lambda: check_writable(path)):
        with pytest.raises(StepAudioError, match="permissions"):
            attempt()
    with pytest.raises(StepAudioError, match="permissions"):
        check_writable(tmp_path / "new.wav")
    assert path.read_bytes() == b"mine"


def test_permissions_and_links_stay(tmp_path):
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink() and target.read_text() == "new" and target.stat().st_mode & 0o777 == 0o640
    write_text(tmp_path / "fresh.txt", "x")
    plain = tmp_path / "plain.txt"
    plain.touch()
    assert (tmp_path / "fresh.txt").stat().st_mode == plain.stat().st_mode


def test_no_audio_and_mixed_audio(tmp_path):
    for ending in ("wav", "flac"):
        with pytest.raises(AudioError, match="no audio"):
            write_audio(tmp_path / f"out.{ending}", [])
        with pytest.raises(ValueError, match="24000"):
            write_audio(tmp_path / f"out.{ending}", [*chunks(tone()), AudioChunk(tone(), 16_000)])
    assert not list(tmp_path.iterdir())


def test_the_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "out.txt"
    with whole_file(path) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"


# chapters


TAGS = Tags(
    "The Tides — 潮",
    "Ann Orr",
    tuple(ChapterMark(f"Chapter {i} 第一章", 500 * i, 500 * i + 500) for i in range(4)),
)


@pytest.mark.parametrize("ending", ["mp3", "opus", "m4b"])
def test_chapters_are_read_by_ffmpeg(tmp_path, ending):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path / f"out.{ending}"
    write_audio(path, chunks(tone(2, 24_000)), TAGS)
    assert_same(read_audio(path), tone(2), 0.1, late=700 if ending == "m4b" else 0)  # its last packet
    with av.open(str(path)) as file:
        read = [(c["start"] * c["time_base"] * 1000, c["metadata"]["title"]) for c in file.chapters()]
        named = {**file.metadata, **file.streams.audio[0].metadata}
    assert read == [(chapter.start_ms, chapter.title) for chapter in TAGS.chapters]
    assert {key.lower(): text for key, text in named.items()}["artist"] == "Ann Orr"


def test_as_many_chapters_as_can_be_with_the_longest_titles(tmp_path):
    most = Tags("x", "y", tuple(ChapterMark("第" * 500, i, i + 1) for i in range(containers.MOST_CHAPTERS)))
    for ending in ("mp3", "opus"):
        path = tmp_path / f"out.{ending}"
        write_audio(path, chunks(tone(2, 24_000)), most)
        assert_same(read_audio(path), tone(2), 0.1)
        assert path.read_bytes().count("第".encode() * 40) == containers.MOST_CHAPTERS


def test_aac_without_its_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install av"):
        check_writable(tmp_path / "a.m4b", files.WRITES)


@pytest.mark.parametrize("ending", ["flac", "opus", "mp3", "ogg"])
def test_a_disk_that_fills_up_while_it_is_encoded(tmp_path, monkeypatch, ending):
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() > 1000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(Path, "open", lambda self, mode: Full(self, mode.replace("b", "")))
    noise = np.random.default_rng(0).normal(0, 0.1, 240_000).astype(np.float32)
    with pytest.raises(StepAudioError, match="disk is full"):
        write_audio(tmp_path / f"out.{ending}", chunks(noise, 24_000))
    assert not list(tmp_path.iterdir())


def test_mp3_read_in_blocks_is_what_it_is_in_one(tmp_path, monkeypatch, capfd):
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * 24_000) * (np.arange(240_000) // 4000 % 3 == 0)
    write_audio(tmp_path / "a.mp3", [AudioChunk(noise.astype(np.float32), 24_000)])
    whole = read_audio(tmp_path / "a.mp3", 24_000).samples
    monkeypatch.setattr(files, "_BLOCK_SAMPLES", 10_000)
    assert np.array_equal(read_audio(tmp_path / "a.mp3", 24_000).samples, whole)
    assert capfd.readouterr().err == ""  # no decoder that lacks the frame before
