"""Audio files in, audio and text files out.

Reading looks at the content, never at the name; it decodes block by block, so that no file, however it was
made, takes more memory than the audio that is allowed. Writing is whole or not at all.

Which decoder: libsndfile reads wav, flac, mp3, ogg, aiff, au and caf. For Opus, Vorbis and ALAC in WebM and
MP4 it gets the packets in a container that it knows; AAC goes to Symphonia (the ``sphn`` package). AAC is
written by FFmpeg (the ``av`` package, if it is there).
"""

from __future__ import annotations

import contextlib
import errno
import glob
import importlib.util
import io
import logging
import os
import re
import secrets
import stat
import struct
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile
import soxr

from stepaudio import containers
from stepaudio.containers import Tags
from stepaudio.core.audio import AudioChunk, float_to_pcm16
from stepaudio.core.errors import AudioError, ConfigError, StepAudioError

log = logging.getLogger(__name__)

READS = "wav, flac, mp3, ogg and opus, m4a and mp4 (AAC, ALAC), webm, aac, aiff, au, caf"
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
WRITES: dict[str, tuple[str, str, tuple[int, ...]]] = {  # ending: container, coding, rates it is held to
    ".wav": ("WAV", "PCM_16", ()),
    ".flac": ("FLAC", "PCM_16", ()),
    ".ogg": ("OGG", "VORBIS", ()),
    ".opus": ("OGG", "OPUS", _OPUS_RATES),
    ".mp3": ("MP3", "MPEG_LAYER_III", _MP3_RATES),
    ".m4a": ("MP4", "AAC", _MP3_RATES),
    ".m4b": ("MP4", "AAC", _MP3_RATES),
}
TAGGED = (".mp3", ".opus", ".m4a", ".m4b")
"""Files that can have chapters here."""
_AAC_BITS = 64_000  # a second: speech sounds like the original from here on

MIN_RATE, MAX_RATE, MAX_CHANNELS = 8_000, 192_000, 8
PIPE_BYTES = 1 << 30  # of a pipe, which must be kept whole: half an hour in stereo at 96 kHz and 24 bit fits
_SPOOL_BYTES = 32 << 20  # of it in memory, the rest in a temporary file
_BLOCK_SAMPLES = 1 << 20  # decoded at once, over all channels: 4 MB
_AAC_PACKETS = 64  # decoded at once: 1.4 s at 48 kHz
_MAX_SAMPLE = 2.0**31  # float files may hold integers as they are; beyond that it is damage, as NaN is
_MAX_BAD = 0.1  # share of samples that are no number, up to which a file is still sound
_DEAD_DB = -40  # a channel this far below the loudest is not connected

AudioSource = Path | str | BinaryIO | bytes


@dataclass(frozen=True, slots=True)
class _Pcm:
    """Decoded audio: blocks of float32, shape (n, channels)."""

    rate: int
    channels: int
    blocks: Iterator[np.ndarray]


def read_audio(source: AudioSource, rate: int | None = 16_000, limit_s: float = 1800) -> AudioChunk:
    """Reads a whole audio file as mono.

    Channels are averaged, without those that are dead (40 dB below the loudest: a microphone on one side of
    a stereo plug keeps its level). Samples that are NaN or infinite become 0, unless they are more than a
    tenth of all. Where float samples go beyond 1, the audio is scaled down so that all but its highest 0.1 %
    fit, and those are clipped: so integers written as floats are read right, and one wild sample does not
    mute the rest. A file that breaks off, or is damaged on the way, is read as far as it goes, with a warning
    in the log.

    Args:
        source: a path, ``-`` for standard input, an open binary file (read from where it stands, seekable or
            not), or the bytes of a file.
        rate: Hz wanted; None: the file's own.
        limit_s: seconds of audio that are allowed (the setting ``audio.limit_s``).

    Raises:
        AudioError: no such file, no audio in it, more than ``limit_s``, more than 8 channels, a sampling rate
            outside 8 to 192 kHz, more than 1 GiB from a pipe.
    """
    with _opened(source) as (file, name):
        try:
            pcm = _decode(file, name, limit_s)
            rate = rate or pcm.rate
            samples = _to_mono(pcm, rate, limit_s, name)
        except OSError as error:
            raise AudioError(f"cannot read {name}: {_reason(error)}") from error
    return AudioChunk(samples, rate)


# --- where it comes from ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(source: AudioSource) -> Iterator[tuple[BinaryIO, str]]:
    """The source as a seekable file that begins with the audio, and its name for messages."""
    if isinstance(source, bytes):
        yield io.BytesIO(source), "the audio"
        return
    if not isinstance(source, str | Path):
        with _copied(source, "the audio") as copy:
            yield copy, "the audio"
        return
    if str(source) == "-":
        if sys.stdin.isatty():
            raise AudioError("nothing is piped into standard input: name a file, or add < question.wav")
        with _copied(sys.stdin.buffer, "standard input") as copy:
            yield copy, "standard input"
        return
    name = str(source)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(source).open("rb"))
            mode = os.fstat(file.fileno()).st_mode
        except (OSError, ValueError) as error:
            raise AudioError(f"cannot read {name}: {_reason(error)}") from error
        if stat.S_ISFIFO(mode):
            file = stack.enter_context(_copied(file, name))
        elif not stat.S_ISREG(mode):
            raise AudioError(f"cannot read {name}: it is a device, not a file")
        yield file, name


def _copied(stream: BinaryIO, name: str) -> BinaryIO:
    """The rest of a stream, as a seekable file: in memory while it is small."""
    copy = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - handed to the caller
    try:
        size = 0
        while block := stream.read(1 << 20):
            size += len(block)
            if size > PIPE_BYTES:
                raise AudioError(f"{name} gave more than {PIPE_BYTES >> 30} GiB; save it, and name that file")
            copy.write(block)
        copy.seek(0)
    except BaseException as error:
        copy.close()
        if isinstance(error, OSError | ValueError):  # ValueError: the stream is closed
            raise AudioError(f"cannot read {name}: {_reason(error)}") from error
        raise
    return cast(BinaryIO, copy)


def _reason(error: OSError | ValueError) -> str:
    """What went wrong with a file, for its reader, and what to do where that is not plain."""
    if not isinstance(error, OSError):
        return str(error)
    return {
        errno.ENOENT: "there is no such file",
        errno.ENOTDIR: "there is no such folder",
        errno.EISDIR: "it is a folder, not a file",
        errno.EACCES: "you may not: its permissions forbid it",
        errno.EPERM: "you may not: its permissions forbid it",
        errno.EROFS: "the disk is read-only; choose another folder",
        errno.ENOSPC: "the disk is full; make room there, or choose another folder",
        errno.EDQUOT: "your share of the disk is used up; make room there, or choose another folder",
        errno.EPIPE: "the program that reads it has ended",
    }.get(error.errno or 0, error.strerror or type(error).__name__)


# --- decoding -----------------------------------------------------------------------------------------------


def _kind(file: BinaryIO) -> str:
    """What a file is, by its first bytes: sndfile, mp4, matroska, adts, empty or unknown."""
    head = file.read(16)
    if head[:3] == b"ID3" and len(head) >= 10:  # a tag, mostly before MP3; its size has 7 bits a byte
        file.seek(10 + sum((head[6 + i] & 127) << 21 - 7 * i for i in range(4)))
        after = file.read(2)
        file.seek(0)
        return "adts" if len(after) == 2 and after[0] == 0xFF and after[1] & 0xF6 == 0xF0 else "sndfile"
    file.seek(0)
    if not head:
        return "empty"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[4:8] in (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide"):
        return "mp4"
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return "sndfile"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "sndfile"
    if head[:4] in (b"fLaC", b"OggS", b".snd", b"caff") or head[:8] == b"riff\x2e\x91\xcf\x11":
        return "sndfile"
    if len(head) >= 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        layer, bit_rate, rate = head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
        if layer == 0 and head[1] & 0xF0 == 0xF0:
            return "adts"
        if layer != 0 and bit_rate != 15 and rate != 3:
            return "sndfile"  # MPEG audio
    return "unknown"


def _decode(file: BinaryIO, name: str, limit_s: float) -> _Pcm:
    """Opens a file with the decoder that fits. What must be repacked is, up to about ``limit_s``."""
    kind = _kind(file)
    if kind == "empty":
        raise AudioError(f"{name} is empty")
    if kind == "unknown":
        raise AudioError(f"{name} is not an audio file that can be read; these can: {READS}")
    if kind == "sndfile":
        return _sndfile(file, name)
    try:
        track = {"mp4": containers.mp4, "matroska": containers.matroska, "adts": containers.adts}[kind](file)
        track = containers.Track(track.codec, track.setup, _until_damaged(track.packets, name), track.skip_s)
        if track.codec == "aac":
            return _aac(track, name)
        repack = {"alac": containers.caf_alac, "opus": containers.ogg_opus, "vorbis": containers.ogg_vorbis}
        data = b"".join(repack[track.codec](track, limit_s))
    except containers.Damaged as error:
        raise AudioError(f"{name} cannot be read: {error}") from error
    return _skip(_sndfile(cast(BinaryIO, io.BytesIO(data)), name), track.skip_s)


def _until_damaged(packets: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The packets up to where the file breaks off."""
    try:
        yield from packets
    except containers.Damaged as error:
        log.warning("%s: %s; what comes before is used", name, error)


def _skip(pcm: _Pcm, seconds: float) -> _Pcm:
    """Leaves out the start."""

    def rest() -> Iterator[np.ndarray]:
        left = round(seconds * pcm.rate)
        for block in pcm.blocks:
            yield block[left:]
            left = max(left - len(block), 0)

    return _Pcm(pcm.rate, pcm.channels, rest()) if seconds else pcm


class _Forward(soundfile.SoundFile):
    """Reads on without seeking. soundfile seeks to where it is after each block, and a decoder of MP3 that
    has to begin in the middle prints an error about the frame before, which it then lacks."""

    def seekable(self) -> bool:
        return False


def _sndfile(file: BinaryIO, name: str) -> _Pcm:
    """Decodes what libsndfile reads."""

    # Without its name: soundfile would ask for the rate of anything that is called .raw.
    nameless: Any = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)

    def opened() -> soundfile.SoundFile:
        file.seek(0)
        return _Forward(nameless)

    try:
        with opened() as sound:
            rate, channels, length = sound.samplerate, sound.channels, sound.frames
            cut = re.search(r"^data : (\d+) \(should be \d+\)", sound.extra_info, re.MULTILINE)
    except (soundfile.SoundFileError, ValueError) as error:
        raise AudioError(f"{name} is damaged, or of a rare kind: {_sndfile_reason(error)}") from error
    _check(rate, channels, name)
    if cut and int(cut[1]) < 0x7FFF0000:  # a WAV; beyond that, it is how programs write "until the end"
        log.warning("%s ends early: only its first %.1f s are there", name, length / rate)

    def blocks() -> Iterator[np.ndarray]:
        buffer = np.empty((_BLOCK_SAMPLES // channels, channels), np.float32)
        done, reason = 0, ""
        for size in (len(buffer), 1024):  # an error takes its whole block along: the second try comes closer
            try:
                with opened() as sound:
                    sound.seek(done)
                    while count := sound.buffer_read_into(buffer[:size], "float32"):
                        done += count
                        yield buffer[:count]
                break
            except soundfile.SoundFileError as error:
                reason = reason or _sndfile_reason(error)
        else:
            if done == 0:
                raise AudioError(f"{name} is damaged: {reason}")
            log.warning("%s is damaged: only its first %.1f s are used (%s)", name, done / rate, reason)
            return
        if done < length < 1 << 40:  # more is libsndfile's sign for "unknown"
            log.warning("%s ends early: %.1f s of %.1f s are there", name, done / rate, length / rate)

    return _Pcm(rate, channels, blocks())


def _sndfile_reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


def _aac(track: containers.Track, name: str) -> _Pcm:
    """Decodes AAC packets."""
    config = containers.aac_config(track.setup)
    _check(config.rate, config.channels, name)
    try:
        import sphn
    except ImportError as error:
        raise AudioError(
            f"{name} is AAC, and its decoder is not on this machine: pip install sphn; "
            f"or convert the file: ffmpeg -i {name} sound.wav"
        ) from error

    def decode(packets: list[bytes], file: Path) -> np.ndarray | None:
        """Samples, (n, channels), or None where a packet is broken. The decoder reads files only."""
        file.write_bytes(containers.to_adts(config, packets))
        try:
            sound = sphn.FileReader(file).decode_all().T
        except Exception:
            return None
        except BaseException as error:
            # A bug in the Rust code, which damaged data may wake; it does not derive from Exception.
            if type(error).__name__ == "PanicException":
                return None
            raise
        return sound if sound.shape == (len(packets) * containers.AAC_FRAME, config.channels) else None

    def blocks() -> Iterator[np.ndarray]:
        size = containers.AAC_FRAME
        count = broken = 0
        before: list[bytes] = []  # the packet that the next one overlaps (14496-3, 4.6.11), decoded again
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "block.aac")
            while packets := list(islice(track.packets, _AAC_PACKETS)):
                count += len(packets)
                sound = decode(before + packets, file)
                if sound is not None:
                    yield sound[len(before) * size :]
                    before = packets[-1:]
                    continue
                for packet in packets:  # which one is broken?
                    sound = decode([*(before or [packet]), packet], file)  # one alone is not taken for AAC
                    broken += sound is None
                    yield np.zeros((size, config.channels), np.float32) if sound is None else sound[-size:]
                    before = [] if sound is None else [packet]
        if count and broken == count:
            raise AudioError(f"{name} is damaged: nothing in it can be decoded")
        if broken:
            log.warning("%s is damaged: %d of %d parts are silent now", name, broken, count)

    return _skip(_Pcm(config.rate, config.channels, blocks()), track.skip_s)


def _check(rate: int, channels: int, name: str) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"{name} is sampled at {rate} Hz; {MIN_RATE} to {MAX_RATE} can be read")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"{name} has {channels} channels; at most {MAX_CHANNELS} can be read")


def _to_mono(pcm: _Pcm, rate: int, limit_s: float, name: str) -> np.ndarray:
    """All blocks as one mono array at ``rate``; the rules are those of ``read_audio``."""
    resampler = soxr.ResampleStream(pcm.rate, rate, 1, dtype="float32") if pcm.rate != rate else None
    pieces: list[np.ndarray] = []
    peaks = np.zeros(pcm.channels, np.float32)
    frames = bad = 0
    for block in pcm.blocks:
        frames += len(block)
        if frames > (limit_s + 0.1) * pcm.rate:  # encoders fill up their last packet
            raise AudioError(
                f"{name} is longer than {limit_s:g} seconds ({limit_s / 60:.3g} minutes): "
                "raise the setting audio.limit_s, or cut the file"
            )
        level = np.abs(block)
        wrong = ~(level <= _MAX_SAMPLE)  # NaN compares as false
        if wrong.any():
            bad += int(wrong.sum())
            block, level = np.where(wrong, 0, block), np.where(wrong, 0, level)
        peaks = np.maximum(peaks, level.max(axis=0, initial=0))
        mono = block.sum(axis=1, dtype=np.float32)  # divided below, when it is known by how much
        pieces.append(resampler.resample_chunk(mono) if resampler else mono)
    if resampler:
        pieces.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    if frames == 0:
        raise AudioError(f"{name} holds no sound: its length is zero")
    if bad > _MAX_BAD * frames * pcm.channels:
        share = bad / frames / pcm.channels
        raise AudioError(f"{name} is damaged: {share:.0%} of its samples are no numbers")
    if bad:
        log.warning("%s: %d samples were no numbers and are silent now", name, bad)
    samples = np.concatenate(pieces)
    samples /= max(int((peaks > peaks.max() * 10 ** (_DEAD_DB / 20)).sum()), 1)
    if np.abs(samples).max(initial=0) > 1:
        rank = int(len(samples) * 0.999)
        samples /= max(float(np.partition(np.abs(samples), rank)[rank]), 1)
        np.clip(samples, -1, 1, out=samples)
    return samples


# --- writing ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def whole_file(path: Path | str) -> Iterator[BinaryIO]:
    """A file that is at ``path`` when the block ends well, and of which nothing is left when it does not.

    It is written under another name in the same folder, and renamed. A link is followed, permissions are
    kept. Where ``path`` is ``-`` (standard output), a pipe or a device, it is written as it comes: these
    forget nothing.

    Raises:
        ConfigError: the folder is missing, or the path is a folder.
        StepAudioError: the disk is full or read-only, or permissions forbid it.
    """
    temporary: Path | None = None
    try:
        if str(path) == "-":
            sys.stdout.flush()
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif _is_stream(path):
            with Path(path).open("wb") as file:
                yield file
        else:
            target, mode = _target(path)
            temporary = target.with_name(f".{target.name[:48]}.{secrets.token_hex(4)}.part")
            with temporary.open("xb") as file:
                if mode is not None:
                    temporary.chmod(mode)
                yield file
                file.flush()
                os.fsync(file.fileno())  # or a power cut may leave the new name with nothing behind it
            temporary.replace(target)
    except OSError as error:
        if error.errno == errno.EPIPE and str(path) == "-":
            with contextlib.suppress(OSError, ValueError):  # or Python complains again, on its last flush
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StepAudioError(f"cannot write {path}: {_reason(error)}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def sweep(folder: Path, name: str = "") -> None:
    """Delete what killed programs left half-written in a folder and below; ``name``: of this file only.

    Call it where nobody else can be writing there.
    """
    for path in folder.glob(f".{glob.escape(name[:48])}.*.part") if name else folder.rglob(".*.part"):
        if re.fullmatch(r"\..{1,48}\.[0-9a-f]{8}\.part", path.name):
            path.unlink(missing_ok=True)


def _is_stream(path: Path | str) -> bool:
    """Whether a path is standard output, or a pipe or device that exists: one that cannot be renamed away."""
    if str(path) == "-":
        return True
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):  # nothing there, or a name that cannot be
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _target(path: Path | str) -> tuple[Path, int | None]:
    """Where a regular file goes, behind all links, and the permissions of the one that is there."""
    try:
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise ConfigError(f"cannot write {path}: it is a folder; name a file in it")
        if not target.parent.is_dir():
            raise ConfigError(f"cannot write {path}: there is no folder {target.parent}; make it first")
    except ValueError as error:  # a NUL in the name
        raise ConfigError(f"cannot write {path!r}: {error}") from error
    if not target.exists():
        return target, None
    if not os.access(target, os.W_OK):  # a rename would not ask
        raise PermissionError(errno.EACCES, "")
    return target, stat.S_IMODE(target.stat().st_mode)


def check_writable(path: Path | str, endings: Collection[str] = ()) -> None:
    """Raises, before long work, what its writing would raise; a full disk only shows later.

    Args:
        path: where the result will go.
        endings: what its name may end in (``WRITES`` for audio); empty: anything.

    Raises:
        ConfigError: the folder is missing, the path is a folder, or its ending is another.
        StepAudioError: permissions forbid it.
    """
    if _is_stream(path):
        return
    try:
        target, _ = _target(path)
        if not os.access(target.parent, os.W_OK):
            raise PermissionError(errno.EACCES, "")
    except OSError as error:
        raise StepAudioError(f"cannot write {path}: {_reason(error)}") from error
    suffix = Path(path).suffix.lower()
    if endings and suffix not in endings:
        raise ConfigError(f"cannot write {path}: its name must end in one of {', '.join(endings)}")
    if suffix in WRITES and WRITES[suffix][1] == "AAC" and not importlib.util.find_spec("av"):
        raise ConfigError(
            f"cannot write {path}: its encoder is not on this machine: pip install av; or use .mp3"
        )


def read_bytes(path: Path | str) -> bytes:
    """All of a file that is small enough to be held.

    Raises:
        ConfigError: there is none, or it may not be read.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {_reason(error)}") from error


def write_text(path: Path | str, text: str) -> None:
    """Writes a text file (UTF-8), whole or not at all; ``-`` is standard output.

    Raises:
        ConfigError, StepAudioError: as ``whole_file``.
    """
    with whole_file(path) as file:
        file.write(text.encode())


def write_audio(path: Path | str, chunks: Iterable[AudioChunk], tags: Tags | None = None) -> None:
    """Writes audio as its name ends: .wav (16 bit), .flac, .ogg (Vorbis), .opus, .mp3, .m4a or .m4b (AAC);
    ``-``: WAV to stdout.

    A WAV is written chunk by chunk, as the chunks come: standard output can be played while it is made.
    There, and in pipes and devices, the length in its header says "until the end".

    Args:
        path: where to.
        chunks: audio of one rate, in order. An error or Ctrl-C in their making leaves no file. They are
            encoded as they come: memory does not grow with their number.
        tags: for files that have them here (``TAGGED``).

    Raises:
        ConfigError: a name with another ending, or as ``whole_file``.
        AudioError: no audio at all.
        StepAudioError: as ``whole_file``.
        ValueError: chunks of different rates.
    """
    check_writable(path, WRITES)
    stream, suffix = _is_stream(path), Path(path).suffix.lower()
    with whole_file(path) as file:
        if stream or suffix == ".wav":
            _write_wav(file, chunks, patch=not stream)
        else:
            _write_encoded(file, chunks, suffix, tags)


def _wav_header(rate: int, size: int) -> bytes:
    """The 44 bytes before ``size`` bytes of mono 16-bit samples; a size of all ones is a stream's."""
    form = struct.pack(
        "<HHIIHH", 1, 1, rate, 2 * rate, 2, 16
    )  # PCM, mono, rate, bytes a second, a frame, bits
    riff, data = (struct.pack("<I", min(n, 0xFFFFFFFF)) for n in (size + 36, size))
    return b"RIFF" + riff + b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + data


def _one_rate(chunks: Iterable[AudioChunk]) -> Iterator[AudioChunk]:
    """The chunks, if there is at least one and their rate stays the same."""
    rate = 0
    for chunk in chunks:
        if rate not in (0, chunk.rate):
            raise ValueError(f"chunks of {rate} and {chunk.rate} Hz in one file")
        rate = chunk.rate
        yield chunk
    if rate == 0:
        raise AudioError("there is no audio to write")


def _write_wav(file: BinaryIO, chunks: Iterable[AudioChunk], patch: bool) -> None:
    """Header and samples; ``patch``: at the end the header learns the length."""
    rate = size = 0
    for chunk in _one_rate(chunks):
        if rate == 0:
            rate = chunk.rate
            file.write(_wav_header(rate, 0xFFFFFFFF))
        data = float_to_pcm16(chunk.samples).astype("<i2").tobytes()
        size += len(data)
        file.write(data)
        file.flush()
    if patch:
        file.seek(0)
        file.write(_wav_header(rate, size))


def _write_encoded(file: BinaryIO, chunks: Iterable[AudioChunk], suffix: str, tags: Tags | None) -> None:
    """Through libsndfile, or FFmpeg; into memory first where the file cannot be gone back in (a pipe)."""
    target = file if file.seekable() else cast(BinaryIO, io.BytesIO())
    container, coding, rates = WRITES[suffix]
    if coding == "AAC":
        _write_aac(target, _at_rate(chunks, rates), tags)
    else:
        _write_sndfile(target, _at_rate(chunks, rates), container, coding, tags)
    if target is not file:
        file.write(cast(io.BytesIO, target).getbuffer())


def _at_rate(chunks: Iterable[AudioChunk], rates: Collection[int]) -> Iterator[AudioChunk]:
    """The chunks in pieces of a second at most, at 48 kHz if their rate is none of ``rates``."""
    resampler, rate = None, 0
    for chunk in _one_rate(chunks):
        if rate == 0:
            rate = chunk.rate if chunk.rate in rates or not rates else 48_000
            if rate != chunk.rate:
                resampler = soxr.ResampleStream(chunk.rate, rate, 1, dtype="float32")
        for at in range(0, len(chunk.samples), chunk.rate):  # libsndfile's Vorbis encoder dies on a minute
            samples = np.clip(chunk.samples[at : at + chunk.rate], -1, 1)
            yield AudioChunk(resampler.resample_chunk(samples) if resampler else samples, rate)
    if resampler:
        yield AudioChunk(resampler.resample_chunk(np.zeros(0, np.float32), last=True), rate)


def _write_sndfile(
    file: BinaryIO, chunks: Iterable[AudioChunk], container: str, coding: str, tags: Tags | None
) -> None:
    tags = tags or Tags()
    sink = _Sink(
        file,
        head=containers.id3(tags) if container == "MP3" and tags != Tags() else b"",
        edit=(lambda head: containers.opus_retagged(head, tags)) if coding == "OPUS" else None,
    )
    sound = None
    try:
        for chunk in chunks:
            if sound is None:
                sound = soundfile.SoundFile(
                    cast(BinaryIO, sink), "w", chunk.rate, 1, coding, format=container
                )
            sound.write(chunk.samples)
            sink.check()
    except soundfile.SoundFileError:
        sink.check()
        raise
    finally:
        if sound:
            sound.close()
    sink.check()


class _Sink:
    """What libsndfile writes into: remembers the error of a full disk, which libsndfile does not tell.

    Args:
        head: stands before all that libsndfile writes.
        edit: makes the beginning of the file from what is written first; None from it: more is needed.
    """

    def __init__(
        self, file: BinaryIO, head: bytes = b"", edit: Callable[[bytes], bytes | None] | None = None
    ) -> None:
        self._file, self._edit, self._error = file, edit, None
        self._held = bytearray()
        file.write(head)
        self._base = len(head)

    def check(self) -> None:
        """Raises what a write raised."""
        if self._error is not None:
            raise self._error

    def write(self, data: bytes) -> int:
        count = len(data)
        try:
            if self._edit is not None:  # libsndfile writes Ogg in one go
                self._held += data
                edited = self._edit(bytes(self._held))
                if edited is None:
                    return count
                data, self._edit = edited, None
            self._file.write(data)
        except OSError as error:
            self._error = self._error or error
        return count

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset + (self._base if whence == 0 else 0), whence) - self._base

    def tell(self) -> int:
        return self._file.tell() - self._base

    def read(self, size: int = -1) -> bytes:
        return b""


def _write_aac(file: BinaryIO, chunks: Iterable[AudioChunk], tags: Tags | None) -> None:
    import av

    tags = tags or Tags()
    with av.open(file, "w", format="ipod") as out:
        out.metadata.update(
            {key: text for key, text in (("title", tags.title), ("artist", tags.author)) if text}
        )
        out.set_chapters(
            [
                {
                    "id": i,
                    "start": chapter.start_ms,
                    "end": chapter.end_ms,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": chapter.title},
                }
                for i, chapter in enumerate(tags.chapters)
            ]
        )
        stream, done = None, 0
        for chunk in chunks:
            if stream is None:
                stream = out.add_stream("aac", rate=chunk.rate, layout="mono", bit_rate=_AAC_BITS)
            frame = av.AudioFrame.from_ndarray(chunk.samples[np.newaxis], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = chunk.rate, done, Fraction(1, chunk.rate)
            done += len(chunk.samples)
            out.mux(stream.encode(frame))
        if stream is not None:
            out.mux(stream.encode(None))


def data_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """``stepaudio`` in the user's data folder (XDG Base Directory Specification)."""
    data = environment.get("XDG_DATA_HOME", "")  # a relative one is invalid by the specification
    home = Path(environment.get("HOME", "~")).expanduser()
    return (Path(data) if data.startswith("/") else home / ".local" / "share") / "stepaudio"
