"""Compressed audio packets: taken out of WebM, MP4 and ADTS, and put into Ogg, CAF and ADTS.

Why: libsndfile decodes Opus, Vorbis and ALAC but opens neither WebM nor MP4, and the AAC decoder wants ADTS.
Nothing is decoded here; it is byte shuffling, by these papers:

* Matroska / WebM: RFC 9559 on EBML, RFC 8794. Live recordings of browsers (unknown sizes) included.
* MP4 / M4A / QuickTime: ISO/IEC 14496-12 and -14, whole or in fragments (as Safari and Chrome record).
* AAC: AudioSpecificConfig and ADTS of ISO/IEC 14496-3. Ogg: RFC 3533; Opus: RFC 6716 and 7845.
* CAF: Apple Core Audio Format specification 1.0.
* Chapters: ID3v2.4 (id3.org, with its addendum on chapter frames) and Ogg's comments (Xiph wiki, Chapter
  Extension).

The input is untrusted: no size in it makes us read more than a packet, or an index, of bounded length. Every
parser raises ``Damaged`` where it cannot go on; what it yielded before is good.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np

PACKET_BYTES = 1 << 20  # no codec here makes packets near this; a larger size is damage
INDEX_BYTES = 64 << 20  # an MP4 index: about 20 bytes a packet, so this is many hours
AAC_FRAME = 1024  # samples in an AAC packet

Codec = Literal["aac", "alac", "opus", "vorbis"]


class Damaged(Exception):
    """The container is broken, cut off, or holds no audio that we know. The message says which."""


@dataclass(frozen=True, slots=True)
class Track:
    """The audio track of a container.

    Attributes:
        codec: what the packets are.
        setup: the codec's own header: AudioSpecificConfig (aac), magic cookie (alac), OpusHead (opus), the
            three Xiph-laced headers (vorbis).
        packets: the packets in order; raises ``Damaged`` where the file breaks off.
        skip_s: seconds at the start that the encoder needed to get going, and a player does not play.
    """

    codec: Codec
    setup: bytes
    packets: Iterator[bytes]
    skip_s: float = 0.0


def _unknown(codings: Iterable[str]) -> str:
    """What is wrong with a coding that we do not know, and what to do."""
    return f"its sound is {', '.join(codings)}, which is not among those known here; ffmpeg makes a wav of it"


def _read(file: BinaryIO, size: int) -> bytes:
    """Exactly ``size`` bytes, or ``Damaged``."""
    data = file.read(size) if size >= 0 else b""
    if len(data) != size:
        raise Damaged("it is cut off")
    return data


@dataclass(frozen=True, slots=True)
class ChapterMark:
    """A place in a long recording that listeners go to, in ms from its start."""

    title: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Tags:
    """What a file says of the recording in it; "" is left out."""

    title: str = ""
    author: str = ""
    chapters: tuple[ChapterMark, ...] = ()


MOST_CHAPTERS = 255
"""That a file can have: ID3 counts them in a byte."""

# --- Matroska / WebM ----------------------------------------------------------------------------------------

_TRACK_ENTRY, _TRACK_NUMBER, _TRACK_TYPE, _CODEC_ID, _CODEC_PRIVATE = 0xAE, 0xD7, 0x83, 0x86, 0x63A2
_CHANNELS, _ENCODINGS, _CLUSTER, _BLOCK, _SIMPLE_BLOCK = 0x9F, 0x6D80, 0x1F43B675, 0xA1, 0xA3
# Segment, Tracks, TrackEntry, Audio, Cluster, BlockGroup: walked into by passing over their header alone. So
# the walk is flat, and whether a size is known (a file) or not (a live recording) makes no difference.
_MASTERS = {0x18538067, 0x1654AE6B, _TRACK_ENTRY, 0xE1, _CLUSTER, 0xA0}
_MATROSKA_CODECS: dict[str, Codec] = {"A_OPUS": "opus", "A_VORBIS": "vorbis", "A_AAC": "aac"}


def _vint(data: bytes) -> tuple[int, int]:
    """The EBML integer at the start of ``data``: its value without the marker bit, and its length."""
    length = 9 - data[0].bit_length() if data else 9
    if length > 8 or len(data) < length:
        raise Damaged("it is cut off or overwritten")
    return int.from_bytes(data[:length], "big") & ((1 << 7 * length) - 1), length


def _file_vint(file: BinaryIO) -> tuple[int, int]:
    """The same, read from a file."""
    first = _read(file, 1)
    return _vint(first + _read(file, 8 - first[0].bit_length() if first[0] else 0))


def _elements(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """The (id, size) of every element to the end of the file; the caller may read the body, or leave it."""
    while file.read(1):
        file.seek(-1, 1)
        value, length = _file_vint(file)
        ident = value | 1 << 7 * length  # ids are written with their marker bit
        size, length = _file_vint(file)
        after = file.tell() + (0 if ident in _MASTERS else size)
        if ident not in _MASTERS and size == (1 << 7 * length) - 1:
            raise Damaged("it is cut off or overwritten")
        yield ident, size
        file.seek(after)


def _laces(block: bytes) -> list[bytes]:
    """The frames of one Matroska block, past its track number (RFC 9559, 10.3)."""
    flags, data = block[2], block[3:]
    lacing = flags >> 1 & 3
    if lacing == 0:
        return [data]
    if not data:
        raise Damaged("it is cut off or overwritten")
    count, at = data[0] + 1, 1
    sizes: list[int] = []
    if lacing == 2:
        sizes = [(len(data) - 1) // count] * (count - 1)
    elif lacing == 1:
        for _ in range(count - 1):
            size = 0
            while at < len(data):
                size, at = size + data[at], at + 1
                if data[at - 1] != 255:
                    break
            sizes.append(size)
    else:
        for i in range(count - 1):
            value, length = _vint(data[at:])
            at += length
            sizes.append(value if i == 0 else sizes[-1] + value - ((1 << 7 * length - 1) - 1))
    frames = []
    for size in sizes:
        if size < 0 or at + size > len(data):
            raise Damaged("it is cut off or overwritten")
        frames.append(data[at : at + size])
        at += size
    return [*frames, data[at:]]


def matroska(file: BinaryIO) -> Track:
    """The first audio track that we know of a Matroska or WebM file.

    Raises:
        Damaged: no such track.
    """
    elements = _elements(file)
    tracks: list[dict[int, bytes]] = []
    for ident, size in elements:
        if ident == _TRACK_ENTRY:
            tracks.append({})
        elif ident == _CLUSTER:
            break
        elif tracks and ident in (
            _TRACK_NUMBER,
            _TRACK_TYPE,
            _CODEC_ID,
            _CODEC_PRIVATE,
            _CHANNELS,
            _ENCODINGS,
        ):
            if size > PACKET_BYTES:
                raise Damaged("its track header is overwritten")
            tracks[-1][ident] = _read(file, size)
    audio = [t for t in tracks if t.get(_TRACK_TYPE) == b"\x02"]
    names = [t.get(_CODEC_ID, b"").rstrip(b"\0").decode("ascii", "replace") for t in audio]
    for track, name in zip(audio, names, strict=True):
        codec = _MATROSKA_CODECS.get(name)
        if codec is None or _ENCODINGS in track:
            continue
        setup = track.get(_CODEC_PRIVATE, b"")
        if codec == "opus" and not setup.startswith(b"OpusHead"):
            channels = (track.get(_CHANNELS) or b"\1")[-1]
            setup = struct.pack("<8sBBHIhB", b"OpusHead", 1, channels, 3840, 48000, 0, 0)
        number = int.from_bytes(track.get(_TRACK_NUMBER, b""), "big")
        return Track(codec, setup, _blocks(file, elements, number))
    raise Damaged(_unknown(names) if names else "it has no sound track")


def _blocks(file: BinaryIO, elements: Iterator[tuple[int, int]], number: int) -> Iterator[bytes]:
    """The packets of one track, from where ``elements`` stands."""
    for ident, size in elements:
        if ident not in (_BLOCK, _SIMPLE_BLOCK):
            continue
        head = file.read(min(size, 8))
        owner, length = _vint(head)
        if owner != number:
            continue  # a picture: its body is never read
        if size > PACKET_BYTES or size < length + 3:
            raise Damaged("a packet of it is overwritten")
        yield from _laces((head + _read(file, size - len(head)))[length:])


# --- MP4 / M4A / QuickTime ----------------------------------------------------------------------------------


def _boxes(data: bytes, at: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """The (type, payload) of the boxes that lie side by side in ``data``."""
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= len(data):
            size, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        elif size == 0:
            size = len(data) - at
        if size < head:
            return
        yield kind, data[at + head : at + size]
        at += size


def _box(data: bytes, *path: bytes) -> bytes:
    """The payload of the first box on a path of types; empty when there is none."""
    for kind in path:
        data = next((payload for k, payload in _boxes(data) if k == kind), b"")
    return data


def _words(data: bytes, at: int, count: int, kind: str = ">u4") -> np.ndarray:
    """A table of big-endian integers; shorter than asked where ``data`` ends."""
    width = np.dtype(kind).itemsize
    size = min(count, max(len(data) - at, 0) // width)
    return np.frombuffer(data, kind, size, at).astype(np.int64) if size else np.zeros(0, np.int64)


def mp4(file: BinaryIO) -> Track:
    """The first audio track that we know of an MP4, M4A, MOV or 3GP file, whole or in fragments.

    Raises:
        Damaged: no such track, or no index (the ``moov`` box: a recording that was never finished has none).
    """
    names: list[str] = []
    for kind, _, body, size in _file_boxes(file):
        if kind != b"moov":
            continue
        if size > INDEX_BYTES:
            raise Damaged("its index is overwritten")
        moov = _read(file, size)
        for trak in (payload for k, payload in _boxes(moov) if k == b"trak"):
            if _box(trak, b"mdia", b"hdlr")[8:12] != b"soun":
                continue
            stbl = _box(trak, b"mdia", b"minf", b"stbl")
            name, entry = next(_boxes(_box(stbl, b"stsd"), 8), (b"", b""))
            names.append(name.decode("latin-1"))
            found = _sample_entry(name, entry)
            if found is None:
                continue
            try:
                skip_s = _edit_start(trak) if found[0] != "opus" else 0.0  # Opus has its own, in OpusHead
                tkhd = _box(trak, b"tkhd")
                track_id = struct.unpack_from(">I", tkhd, 20 if tkhd[:1] == b"\1" else 12)[0]
            except struct.error:
                raise Damaged("its index is cut off") from None
            return Track(*found, _samples(file, moov, stbl, track_id, body + size), skip_s)
    if names:
        raise Damaged(_unknown(names))
    raise Damaged("it has no sound track, or was cut off before its index: record or copy it again")


def _file_boxes(file: BinaryIO, at: int = 0) -> Iterator[tuple[bytes, int, int, int]]:
    """(type, start, start and size of payload) of the outermost boxes; the file stands at the payload."""
    end = file.seek(0, 2)
    while at + 8 <= end:
        file.seek(at)
        size, kind = struct.unpack(">I4s", _read(file, 8))
        head = 8
        if size == 1:
            size, head = struct.unpack(">Q", _read(file, 8))[0], 16
        elif size == 0:
            size = end - at
        if size < head:
            return
        yield kind, at, at + head, size - head
        at += size


def _sample_entry(name: bytes, entry: bytes) -> tuple[Codec, bytes] | None:
    """Codec and setup of an audio sample entry (14496-12, 12.2.3; the longer forms are QuickTime's)."""
    version = int.from_bytes(entry[8:10], "big")
    inner = entry[28 + {1: 16, 2: 36}.get(version, 0) :]
    wave = _box(inner, b"wave")
    if name == b"mp4a" and (esds := _box(inner, b"esds") or _box(wave, b"esds")):
        config = _decoder_config(esds[4:])
        return ("aac", config) if config else None
    if name == b"alac" and (cookie := _box(inner, b"alac") or _box(wave, b"alac")):
        return "alac", cookie[4:]
    if name == b"Opus" and len(box := _box(inner, b"dOps")) >= 11:
        _, channels, pre_skip, rate, gain, family = struct.unpack_from(">BBHIhB", box)
        return "opus", struct.pack("<8sBBHIhB", b"OpusHead", 1, channels, pre_skip, rate, gain, family) + box[
            11:
        ]
    return None


def _decoder_config(data: bytes) -> bytes:
    """The AudioSpecificConfig in an ``esds`` box (14496-1, 7.2.6: descriptors in descriptors), if any."""
    at = 0
    while at + 2 <= len(data):
        tag, at, size = data[at], at + 1, 0
        while at < len(data):
            size, at = size << 7 | data[at] & 127, at + 1
            if data[at - 1] < 128:
                break
        if tag == 3:  # ES descriptor: id, flags and what the flags announce
            flags = data[at + 2] if at + 2 < len(data) else 0
            at += 3 + (2 if flags & 128 else 0) + (2 if flags & 32 else 0)
            if flags & 64:
                at += 1 + (data[at] if at < len(data) else 0)
        elif tag == 4:  # decoder: object type 0x40 is MPEG-4 audio, 0x66..0x68 MPEG-2 AAC
            if at >= len(data) or data[at] not in (0x40, 0x66, 0x67, 0x68):
                return b""
            at += 13
        elif tag == 5:
            return data[at : at + size]
        else:
            at += size
    return b""


def _edit_start(trak: bytes) -> float:
    """Seconds of the track that its edit list leaves out at the start: the encoder's delay."""
    elst, mdhd = _box(trak, b"edts", b"elst"), _box(trak, b"mdia", b"mdhd")
    scale = struct.unpack_from(">I", mdhd, 20 if mdhd[:1] == b"\1" else 12)[0]
    form = ">Qq4x" if elst[:1] == b"\1" else ">Ii4x"
    for at in range(8, len(elst) - struct.calcsize(form) + 1, struct.calcsize(form)):
        media_time = struct.unpack_from(form, elst, at)[1]
        if media_time >= 0:  # -1 is an empty edit: a wait before the track
            return (
                min(media_time / scale, 1.0) if scale else 0.0
            )  # longer ones are cuts of an editor: keep the sound
    return 0.0


def _samples(file: BinaryIO, moov: bytes, stbl: bytes, track_id: int, after: int) -> Iterator[bytes]:
    """The packets of one track: those of the index, then those of the fragments that follow it."""
    for offset, sizes in _chunks(stbl):
        yield from _packets_at(file, offset, sizes)
    default = next(
        (
            trex[12 + 4 :][:4]
            for k, trex in _boxes(_box(moov, b"mvex"))
            if trex[4:8] == struct.pack(">I", track_id)
        ),
        b"",
    )
    for kind, start, _, size in _file_boxes(file, after):
        if kind != b"moof":
            continue
        if size > INDEX_BYTES:
            raise Damaged("an index of it is overwritten")
        moof = _read(file, size)
        try:
            runs = list(_runs(moof, start, track_id, int.from_bytes(default, "big")))
        except struct.error:
            raise Damaged("an index of it is cut off") from None
        for offset, sizes in runs:
            yield from _packets_at(file, offset, sizes)


def _packets_at(file: BinaryIO, offset: int, sizes: Iterable[int]) -> Iterator[bytes]:
    for size in sizes:
        if not 0 < size <= PACKET_BYTES or not 0 <= offset < 1 << 62:
            raise Damaged("a packet of it is overwritten")
        file.seek(offset)
        yield _read(file, size)
        offset += size


def _chunks(stbl: bytes) -> Iterator[tuple[int, list[int]]]:
    """(offset, packet sizes) of every chunk of an index (14496-12, 8.7)."""
    stsz, stsc = _box(stbl, b"stsz"), _box(stbl, b"stsc")
    if len(stsz) < 12 or len(stsc) < 8:
        return
    same, count = struct.unpack_from(">II", stsz, 4)
    sizes = _words(stsz, 12, count)
    if stco := _box(stbl, b"stco"):
        offsets = _words(stco, 8, int.from_bytes(stco[4:8], "big"))
    else:
        co64 = _box(stbl, b"co64")
        offsets = _words(co64, 8, int.from_bytes(co64[4:8], "big"), ">i8")
    rows = _words(stsc, 8, 3 * int.from_bytes(stsc[4:8], "big"))
    rows = rows[: len(rows) // 3 * 3].reshape(-1, 3)  # first chunk (from 1), packets in each, description
    row, at = -1, 0
    for chunk, offset in enumerate(offsets.tolist(), 1):
        while row + 1 < len(rows) and rows[row + 1, 0] <= chunk:
            row += 1
        if row < 0 or at >= count:
            return
        n = min(int(rows[row, 1]), count - at)
        if n > PACKET_BYTES:
            raise Damaged("its index is overwritten")
        yield offset, [same] * n if same else sizes[at : at + n].tolist()
        at += n


def _runs(moof: bytes, start: int, track_id: int, default: int) -> Iterator[tuple[int, list[int]]]:
    """(offset, packet sizes) of every run of one track in a fragment (14496-12, 8.8)."""
    for kind, traf in _boxes(moof):
        tfhd = _box(traf, b"tfhd")
        if kind != b"traf" or tfhd[4:8] != struct.pack(">I", track_id):
            continue
        flags, at, base, same = int.from_bytes(tfhd[:4], "big"), 8, start, default
        if flags & 0x01:
            base, at = struct.unpack_from(">Q", tfhd, at)[0], at + 8
        at += (4 if flags & 0x02 else 0) + (4 if flags & 0x08 else 0)
        if flags & 0x10:
            same = struct.unpack_from(">I", tfhd, at)[0]
        offset = base
        for trun in (payload for k, payload in _boxes(traf) if k == b"trun"):
            flags, count = struct.unpack_from(">II", trun)
            at = 8
            if flags & 0x01:
                offset, at = base + struct.unpack_from(">i", trun, at)[0], at + 4
            at += 4 if flags & 0x04 else 0
            fields = [bit for bit in (0x100, 0x200, 0x400, 0x800) if flags & bit]
            if 0x200 in fields:
                table = _words(trun, at, count * len(fields))
                sizes = table[fields.index(0x200) :: len(fields)].tolist()
            elif count <= PACKET_BYTES:
                sizes = [same] * count
            else:
                raise Damaged("an index of it is overwritten")
            yield max(offset, 0), sizes
            offset += sum(sizes)


# --- AAC ----------------------------------------------------------------------------------------------------

_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


@dataclass(frozen=True, slots=True)
class AacConfig:
    """What an AAC decoder must know. ``rate_index`` is a place in the table of 14496-3, 1.6.3.4."""

    rate_index: int
    channels: int

    @property
    def rate(self) -> int:
        """Hz."""
        return _AAC_RATES[self.rate_index]


def aac_config(setup: bytes) -> AacConfig:
    """Reads an AudioSpecificConfig (14496-3, 1.6.2).

    HE-AAC counts as the AAC-LC inside it, at half its rate: the upper half of its band is what it leaves out,
    and speech recognition works below 8 kHz anyway.

    Raises:
        Damaged: an AAC that is not LC (Main, LTP, low delay, xHE ...), or not a configuration.
    """
    bits, left = int.from_bytes(setup[:8].ljust(8, b"\0"), "big"), 64

    def take(n: int) -> int:
        nonlocal left
        left -= n
        return bits >> left & ((1 << n) - 1)

    kind = take(5)
    kind = 32 + take(6) if kind == 31 else kind
    index = take(4)
    rate = take(24) if index == 15 else 0
    channels = take(4)
    if kind in (5, 29):  # SBR, PS: an extension rate, then the object type of the core
        take(24 if take(4) == 15 else 0)
        kind = take(5)
    short = take(1)
    if len(setup) < 2 or kind != 2 or short:
        raise Damaged(_unknown([f"AAC of object type {kind}"]))  # LC and HE are known
    if index == 15:
        index = min(range(len(_AAC_RATES)), key=lambda i: abs(_AAC_RATES[i] - rate))
    if index >= len(_AAC_RATES) or channels not in (1, 2):
        raise Damaged(_unknown(["AAC of more than two channels"]))
    return AacConfig(index, channels)


def adts(file: BinaryIO) -> Track:
    """The packets of an ADTS stream (``.aac``). Bytes between frames, as tags, are passed over.

    Raises:
        Damaged: no two frames on end.
    """
    data = _adts_frames(file)
    try:
        head, first = next(data)
        second = next(data, None)
    except StopIteration:
        raise Damaged("it holds no AAC") from None

    def packets() -> Iterator[bytes]:
        yield first
        if second is not None:
            yield second[1]
        yield from (packet for _, packet in data)

    index, channels = head[2] >> 2 & 15, (head[2] & 1) << 2 | head[3] >> 6
    kind = (head[2] >> 6) + 1
    return Track("aac", struct.pack(">H", kind << 11 | index << 7 | channels << 3), packets())


def _adts_frames(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """(header, packet) of every frame."""
    while len(head := file.read(7)) == 7:
        size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        extra = 0 if head[1] & 1 else 2  # a checksum
        if head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and head[6] & 3 == 0 and size > 7 + extra:
            yield head, _read(file, size - 7)[extra:]
        else:
            skip = head.find(b"\xff", 1)
            file.seek(skip - 7 if skip > 0 else 0, 1)


def to_adts(config: AacConfig, packets: Iterable[bytes]) -> bytes:
    """Packets as an ADTS stream of AAC-LC without checksums (14496-3, 1.A.2)."""
    out = bytearray()
    for packet in packets:
        size = len(packet) + 7
        if size >= 1 << 13:
            continue  # more than AAC can make: noise
        out += bytes(
            (
                0xFF,
                0xF1,
                1 << 6 | config.rate_index << 2 | config.channels >> 2,
                (config.channels & 3) << 6 | size >> 11,
                size >> 3 & 255,
                (size & 7) << 5 | 31,
                0xFC,
            )
        )
        out += packet
    return bytes(out)


# --- Ogg and CAF --------------------------------------------------------------------------------------------

# Ogg's CRC runs from the high bit, zlib's from the low one, over the same polynomial: turn the bits of every
# byte, and of the result, and zlib computes Ogg's.
_TURNED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))


def _ogg_crc(data: bytes) -> int:
    value = zlib.crc32(data.translate(_TURNED), 0xFFFFFFFF) ^ 0xFFFFFFFF  # starts from 0, not inverted
    return int(f"{value:032b}"[::-1], 2)


def _ogg_page(packets: list[bytes], granule: int, number: int, flags: int, serial: int = 1) -> bytes:
    """One page (RFC 3533, 6) of whole packets, of which the lacing needs at most 255 values."""
    lacing = b"".join(b"\xff" * (len(p) // 255) + bytes([len(p) % 255]) for p in packets)
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, granule, serial, number, 0)
    head += bytes([len(lacing)]) + lacing
    page = head + b"".join(packets)
    return page[:22] + struct.pack("<I", _ogg_crc(page)) + page[26:]


def _ogg(headers: list[list[bytes]], packets: Iterable[tuple[bytes, int]]) -> Iterator[bytes]:
    """An Ogg stream: pages of headers, then packets with the sample position at the end of each."""
    number = 0
    for group in headers:
        yield _ogg_page(group, 0, number, 2 if number == 0 else 0)
        number += 1
    page: list[bytes] = []
    values = granule = 0
    for packet, end in packets:
        needs = len(packet) // 255 + 1
        if needs > 255:
            continue  # no codec here has such packets: it is noise
        if values + needs > 255:
            yield _ogg_page(page, granule, number, 0)
            page, values, number = [], 0, number + 1
        page.append(packet)
        values, granule = values + needs, end
    yield _ogg_page(page, granule, number, 4)


def opus_samples(packet: bytes) -> int:
    """Samples (at 48 kHz) in an Opus packet, from its first bytes (RFC 6716, 3.1-3.2); 0 if it is broken."""
    if not packet:
        return 0
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        frame = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        frame = (480, 960)[config & 1]
    else:
        frame = (120, 240, 480, 960)[config & 3]
    count = (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[code]
    return frame * count if frame * count <= 5760 else 0


def ogg_opus(track: Track, limit_s: float) -> Iterator[bytes]:
    """An Ogg Opus file (RFC 7845) of a track of Opus, in pieces, up to about ``limit_s`` seconds."""

    def timed() -> Iterator[tuple[bytes, int]]:
        end = 0
        for packet in track.packets:
            if samples := opus_samples(packet):
                end += samples
                yield packet, end
            if end > (limit_s + 1) * 48000:
                return

    tags = struct.pack("<8sII", b"OpusTags", 0, 0)
    return _ogg([[track.setup], [tags]], timed())


def ogg_vorbis(track: Track, limit_s: float) -> Iterator[bytes]:
    """An Ogg Vorbis file (Vorbis I, annex A) of a track of Vorbis, in pieces, up to about ``limit_s``.

    Raises:
        Damaged: the setup is not the three headers of Vorbis.
    """
    headers = _laces(b"\0\0\2" + track.setup) if track.setup[:1] == b"\2" else []  # laced as in a block
    if len(headers) != 3 or len(headers[0]) < 30:
        raise Damaged("its Vorbis header is overwritten")
    rate = int.from_bytes(headers[0][12:16], "little")
    sizes = 1 << (headers[0][28] & 15), 1 << (headers[0][28] >> 4)
    modes = [sizes[flag] for flag in _vorbis_modes(headers[2])]
    mask = (1 << (len(modes) - 1).bit_length()) - 1

    def timed() -> Iterator[tuple[bytes, int]]:
        end = before = 0
        for packet in track.packets:
            mode = packet[0] >> 1 & mask if packet and not packet[0] & 1 else len(modes)
            if mode >= len(modes):
                continue  # not audio
            end += (
                (before + modes[mode]) // 4 if before else 0
            )  # halves of neighbours overlap (Vorbis I, 1.3.2)
            before = modes[mode]
            yield packet, end
            if end > (limit_s + 1) * rate:
                return

    return _ogg([headers[:1], headers[1:]], timed())


def _vorbis_modes(setup: bytes) -> list[int]:
    """The block flag (0 short, 1 long) of every mode, from the end of a Vorbis setup header.

    The modes are its last part: how many less one (6 bits), then for each a flag, two 16-bit types that are 0
    and a mapping (8 bits), then the framing bit (Vorbis I, 4.2.4). Read from the end, the Huffman tables
    before them need no decoding.
    """
    bits = int.from_bytes(
        setup[-512:], "little"
    )  # 64 modes of 41 bits are at most 329 bytes; bits run upwards
    end, flags, found = bits.bit_length() - 1, [], []
    while end >= 47 and len(flags) < 64 and not bits >> (end - 40) & 0xFFFFFFFF:
        end -= 41
        flags.insert(0, bits >> end & 1)
        if bits >> (end - 6) & 63 == len(flags) - 1:
            found = list(flags)
    if not found:
        raise Damaged("its Vorbis header is overwritten")
    return found


def caf_alac(track: Track, limit_s: float) -> list[bytes]:
    """A CAF file of a track of ALAC (as Voice Memos records when set to lossless), up to about ``limit_s``.

    Raises:
        Damaged: no magic cookie (24 bytes: frames in a packet, version, bits, tuning, channels ... rate).
    """
    if len(track.setup) < 24:
        raise Damaged("its ALAC header is cut off")
    frames, _, bits, _, _, _, channels, _, _, _, rate = struct.unpack(">IBBBBBBHIII", track.setup[:24])
    if not (0 < frames <= 1 << 16 and rate and bits in (16, 20, 24, 32)):
        raise Damaged("its ALAC header is overwritten")
    packets, table = bytearray(), bytearray()
    count = 0
    for packet in track.packets:
        packets += packet
        size = len(packet)
        table += bytes([size >> s & 127 | 128 for s in (28, 21, 14, 7) if size >> s] + [size & 127])
        count += 1
        if count * frames > (limit_s + 1) * rate:
            break
    flags = {16: 1, 20: 2, 24: 3, 32: 4}[bits]
    desc = struct.pack(">d4s5I", rate, b"alac", flags, 0, frames, channels, 0)
    pakt = struct.pack(">qqii", count, count * frames, 0, 0) + bytes(table)
    chunks = (
        (b"desc", desc),
        (b"kuki", track.setup),
        (b"pakt", pakt),
        (b"data", b"\0\0\0\1" + bytes(packets)),
    )
    return [b"caff\0\1\0\0", *(struct.pack(">4sq", kind, len(body)) + body for kind, body in chunks)]


# --- tags ---------------------------------------------------------------------------------------------------

_TITLE_BYTES = 120
"""Longest title of a chapter, such that all of them fit into one page of Ogg."""


def _cut(text: str) -> bytes:
    """A text without its control characters, as UTF-8 of bounded length; never half a character."""
    words = "".join(char for char in text if char.isprintable())
    return words.encode()[:_TITLE_BYTES].decode(errors="ignore").encode()


def id3(tags: Tags) -> bytes:
    """An ID3v2.4 tag, which stands before the first frame of an MP3."""

    def size(count: int) -> bytes:
        return bytes(count >> shift & 127 for shift in (21, 14, 7, 0))

    def frame(name: bytes, body: bytes) -> bytes:
        return name + size(len(body)) + b"\0\0" + body

    def text(name: bytes, words: str) -> bytes:
        return frame(name, b"\3" + _cut(words)) if words else b""  # 3: UTF-8

    frames = [text(b"TIT2", tags.title), text(b"TPE1", tags.author)]
    if tags.chapters:
        names = [b"c%d\0" % i for i in range(len(tags.chapters))]
        flags = b"\3"  # top level, in order
        frames.append(frame(b"CTOC", b"toc\0" + flags + bytes([len(names)]) + b"".join(names)))
        for name, chapter in zip(names, tags.chapters, strict=True):
            times = struct.pack(">IIII", chapter.start_ms, chapter.end_ms, 0xFFFFFFFF, 0xFFFFFFFF)
            frames.append(frame(b"CHAP", name + times + text(b"TIT2", chapter.title)))
    body = b"".join(frames)
    return b"ID3\4\0\0" + size(len(body)) + body


def opus_retagged(head: bytes, tags: Tags) -> bytes | None:
    """The beginning of an Ogg Opus file, with these tags in the place of its own.

    Args:
        head: the first bytes of the file, as many as are there.

    Returns:
        None while its first two pages are not all there.
    """
    ends, at = list[int](), 0
    while len(ends) < 2:
        if len(head) < at + 27 or len(head) < at + 27 + head[at + 26]:
            return None
        at += 27 + head[at + 26] + sum(head[at + 27 : at + 27 + head[at + 26]])
        ends.append(at)
    if len(head) < at:
        return None
    comments = [b"TITLE=" + _cut(tags.title)] if tags.title else []
    comments += [b"ARTIST=" + _cut(tags.author)] if tags.author else []
    for i, chapter in enumerate(tags.chapters):
        seconds, ms = divmod(chapter.start_ms, 1000)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}"
        comments += [f"CHAPTER{i:03}={clock}".encode(), f"CHAPTER{i:03}NAME=".encode() + _cut(chapter.title)]
    vendor = b"stepaudio"
    packet = b"OpusTags" + struct.pack("<I", len(vendor)) + vendor + struct.pack("<I", len(comments))
    packet += b"".join(struct.pack("<I", len(comment)) + comment for comment in comments)
    serial = struct.unpack_from("<I", head, 14)[0]
    return head[: ends[0]] + _ogg_page([packet], 0, 1, 0, serial) + head[ends[1] :]
