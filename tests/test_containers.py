"""Packets out of containers, whatever shape these have; every container here is made by the test itself."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stepaudio import containers
from stepaudio.containers import Damaged

DATA = Path(__file__).parent / "data"
PACKETS = [bytes([n]) * (n * 37 % 300 + 5) for n in range(1, 20)]


# --- makers ---------------------------------------------------------------------------------------


def ogg_packets(data: bytes) -> list[bytes]:
    """All packets of an Ogg file, headers too."""
    packets, part, at = [], b"", 0
    while at < len(data):
        assert data[at : at + 4] == b"OggS"
        lacing = data[at + 27 : at + 27 + data[at + 26]]
        at += 27 + len(lacing)
        for size in lacing:
            part, at = part + data[at : at + size], at + size
            if size < 255:
                packets, part = [*packets, part], b""
    return packets


def encoded(subtype: str, seconds: float = 3, rate: int = 48_000) -> bytes:
    """A tone as Ogg."""
    sound = 0.4 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", rate, 1, subtype, format="OGG") as file:
        for at in range(0, len(sound), rate):
            file.write(sound[at : at + rate])
    return out.getvalue()


def element(ident: str, body: bytes, unknown: bool = False) -> bytes:
    """An EBML element; of unknown size, as live recordings have them."""
    size = b"\x01" + b"\xff" * 7 if unknown else struct.pack(">Q", len(body) | 1 << 56)
    return bytes.fromhex(ident) + size + body


def xiph(sizes: Sequence[int]) -> bytes:
    return b"".join(b"\xff" * (n // 255) + bytes([n % 255]) for n in sizes)


def webm(
    packets: Sequence[bytes],
    codec: str,
    setup: bytes,
    lacing: str = "",
    unknown: bool = False,
    groups: bool = False,
) -> bytes:
    """A WebM with a picture track in the way."""

    def block(number: int, frames: Sequence[bytes], mode: str) -> bytes:
        flags = {"": 0, "xiph": 2, "fixed": 4, "ebml": 6}[mode]
        head = bytes([0x80 | number, 0, 0, flags])
        if mode:
            head += bytes([len(frames) - 1])
        sizes = [len(f) for f in frames]
        if mode == "xiph":
            head += xiph(sizes[:-1])
        if mode == "ebml":
            deltas = [b - a for a, b in pairwise(sizes[:-1])]
            head += struct.pack(">H", sizes[0] | 0x4000) + b"".join(
                struct.pack(">H", d + 8191 | 0x4000) for d in deltas
            )
        body = head + b"".join(frames)
        return element("a0", element("a1", body) + element("9b", b"\x14")) if groups else element("a3", body)

    picture = element("ae", element("d7", b"\1") + element("83", b"\1") + element("86", b"V_VP8"))
    sound = element("d7", b"\2") + element("83", b"\2") + element("86", codec.encode())
    sound += (element("63a2", setup) if setup else b"") + element("e1", element("9f", b"\1"))
    tracks = element("1654ae6b", picture + element("ae", sound))
    step = 4 if lacing else 1
    clusters = b""
    for at in range(0, len(packets), 8):
        some = packets[at : at + 8]
        blocks = b"".join(block(2, some[i : i + step], lacing) for i in range(0, len(some), step))
        clusters += element(
            "1f43b675", element("e7", b"\0") + block(1, [b"picture" * 99], "") + blocks, unknown
        )
    return element("1a45dfa3", element("4282", b"webm")) + element("18538067", tracks + clusters, unknown)


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def esds(config: bytes, kind: int = 0x40) -> bytes:
    """With sizes in the long form, as encoders write them."""
    inner = b"\x05\x80\x80" + bytes([len(config)]) + config
    decoder = b"\x04\x80\x80" + bytes([len(inner) + 13, kind]) + bytes(12) + inner
    return box(b"esds", bytes(4), b"\x03\x80\x80" + bytes([len(decoder) + 3]) + bytes(3) + decoder)


def mp4(
    packets: Sequence[bytes],
    entry: bytes,
    fragments: str = "",
    version: int = 0,
    edits: Sequence[tuple[int, int]] = (),
    wide: bool = False,
) -> bytes:
    """An MP4 with the sound in chunks of three packets, or in fragments (``sizes``, ``same``, ``base``)."""
    long = bytes([version, 0, 0, 0])
    times = bytes(16 if version else 8)
    sizes = [len(p) for p in packets]
    same = len(set(sizes)) == 1
    head = box(b"ftyp", b"M4A ", bytes(4)) + box(b"free", bytes(3))
    chunks = [packets[at : at + 3] for at in range(0, len(packets), 3)]

    def moov(start: int) -> bytes:
        offsets = [start + sum(sizes[: 3 * i]) for i in range(len(chunks))]
        rows = [(1, 3, 1)] + ([(len(chunks), len(chunks[-1]), 1)] if len(chunks[-1]) < 3 else [])
        index = [
            box(b"stsz", bytes(4), struct.pack(">II", sizes[0] if same else 0, len(sizes)))
            if same
            else box(b"stsz", bytes(4), struct.pack(f">II{len(sizes)}I", 0, len(sizes), *sizes)),
            box(b"stsc", bytes(4), struct.pack(">I", len(rows)), *(struct.pack(">III", *r) for r in rows)),
            box(b"co64", bytes(4), struct.pack(f">I{len(offsets)}Q", len(offsets), *offsets))
            if wide
            else box(b"stco", bytes(4), struct.pack(f">I{len(offsets)}I", len(offsets), *offsets)),
        ]
        stbl = box(
            b"stbl", box(b"stsd", bytes(4), struct.pack(">I", 1), entry), *([] if fragments else index)
        )
        form = ">QqI" if version else ">IiI"
        elst = box(
            b"elst",
            long,
            struct.pack(">I", len(edits)),
            *(struct.pack(form, d, m, 1 << 16) for d, m in edits),
        )
        mdia = box(
            b"mdia",
            box(b"mdhd", long, times, struct.pack(">I", 44100), bytes(8)),
            box(b"hdlr", bytes(8), b"soun", bytes(13)),
            box(b"minf", stbl),
        )
        tkhd = box(b"tkhd", long, times, struct.pack(">I", 7), bytes(60))
        picture = box(b"trak", box(b"mdia", box(b"hdlr", bytes(8), b"vide", bytes(13))))
        trex = box(b"trex", bytes(4), struct.pack(">IIIII", 7, 1, 1024, sizes[0], 0))
        other = box(b"trex", bytes(4), struct.pack(">IIIII", 1, 1, 1024, 1, 0))
        extra = [box(b"mvex", other, trex)] if fragments else []
        return box(b"moov", picture, box(b"trak", tkhd, box(b"edts", elst) if edits else b"", mdia), *extra)

    if not fragments:
        start = len(head) + len(moov(0)) + 8
        return head + moov(start) + box(b"mdat", *packets)
    out = head + moov(0)
    for at in range(0, len(packets), 5):
        some = packets[at : at + 5]

        def moof(offset: int, at: int, some: Sequence[bytes] = some) -> bytes:
            if fragments == "same":
                trun = struct.pack(">IIi", 0x000001, len(some), offset)
                tfhd = struct.pack(">II", 0x020000, 7)
            elif fragments == "base":
                rows = b"".join(struct.pack(">I", len(p)) for p in some)
                trun = struct.pack(">II", 0x000200, len(some)) + rows
                tfhd = struct.pack(">IIQII", 0x000019, 7, at + offset, 1024, 3)
            else:
                rows = b"".join(struct.pack(">IIIi", 1024, len(p), 0, 0) for p in some)
                trun = struct.pack(">IIiI", 0x000F05, len(some), offset, 0) + rows
                tfhd = struct.pack(">II", 0x020000, 7)
            pictures = box(b"traf", box(b"tfhd", struct.pack(">II", 0, 1)))
            return box(
                b"moof",
                box(b"mfhd", bytes(8)),
                pictures,
                box(b"traf", box(b"tfhd", tfhd), box(b"trun", trun)),
            )

        size = len(moof(0, 0))
        out += box(b"sidx", bytes(20))
        out += moof(size + 8, len(out)) + box(b"mdat", *some)
    return out


def sample_entry(kind: bytes, *inner: bytes, version: int = 0) -> bytes:
    body = bytes(8) + struct.pack(">H", version) + bytes(18) + bytes({1: 16, 2: 36}.get(version, 0))
    return box(kind, body, *inner)


AAC = sample_entry(b"mp4a", esds(b"\x12\x10"))


# --- Matroska -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lacing", ["", "xiph", "ebml"])
@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("groups", [False, True])
def test_matroska_gives_its_packets(lacing, unknown, groups):
    track = containers.matroska(
        io.BytesIO(webm(PACKETS, "A_OPUS", b"OpusHead rest", lacing, unknown, groups))
    )
    assert (track.codec, track.setup) == ("opus", b"OpusHead rest")
    assert list(track.packets) == PACKETS


def test_matroska_with_fixed_lacing():
    packets = [bytes([n]) * 40 for n in range(16)]
    assert (
        list(containers.matroska(io.BytesIO(webm(packets, "A_AAC", b"\x12\x10", "fixed"))).packets) == packets
    )


def test_opus_without_a_header_gets_one():
    setup = containers.matroska(io.BytesIO(webm(PACKETS, "A_OPUS", b""))).setup
    assert setup[:10] == b"OpusHead\1\1" and len(setup) == 19


def test_matroska_without_a_sound_that_we_know():
    with pytest.raises(Damaged, match="A_AC3"):
        containers.matroska(io.BytesIO(webm(PACKETS, "A_AC3", b"")))
    with pytest.raises(Damaged, match="no sound track"):
        containers.matroska(io.BytesIO(element("1a45dfa3", b"")))


# --- MP4 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fragments", ["", "sizes", "base"])
@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("wide", [False, True])
def test_mp4_gives_its_packets(fragments, version, wide):
    track = containers.mp4(io.BytesIO(mp4(PACKETS, AAC, fragments, version, wide=wide)))
    assert (track.codec, track.setup, track.skip_s) == ("aac", b"\x12\x10", 0)
    assert list(track.packets) == PACKETS


@pytest.mark.parametrize("fragments", ["", "same"])
def test_mp4_with_packets_of_one_size(fragments):
    packets = [bytes([n]) * 50 for n in range(11)]
    assert list(containers.mp4(io.BytesIO(mp4(packets, AAC, fragments))).packets) == packets


@pytest.mark.parametrize("version", [1, 2])
def test_quicktime_sample_entries(version):
    entry = sample_entry(b"mp4a", box(b"wave", box(b"frma", b"mp4a"), esds(b"\x12\x10")), version=version)
    assert containers.mp4(io.BytesIO(mp4(PACKETS, entry))).setup == b"\x12\x10"


@pytest.mark.parametrize("version", [0, 1])
def test_the_edit_list_tells_where_the_sound_begins(version):
    edits = [(500, -1), (1000, 2112)]
    track = containers.mp4(io.BytesIO(mp4(PACKETS, AAC, version=version, edits=edits)))
    assert track.skip_s == pytest.approx(2112 / 44100)


def test_opus_in_mp4():
    dops = struct.pack(">BBHIhB", 0, 2, 312, 48000, 0, 0)
    track = containers.mp4(
        io.BytesIO(mp4(PACKETS, sample_entry(b"Opus", box(b"dOps", dops)), edits=[(9, 312)]))
    )
    assert track.codec == "opus" and track.skip_s == 0
    assert track.setup == struct.pack("<8sBBHIhB", b"OpusHead", 1, 2, 312, 48000, 0, 0)


def test_mp4_without_a_sound_that_we_know():
    with pytest.raises(Damaged, match="ac-3"):
        containers.mp4(io.BytesIO(mp4(PACKETS, sample_entry(b"ac-3"))))
    with pytest.raises(Damaged, match="mp4a"):  # MP3 in MP4
        containers.mp4(io.BytesIO(mp4(PACKETS, sample_entry(b"mp4a", esds(b"\x12\x10", 0x6B)))))
    with pytest.raises(Damaged, match="index"):
        containers.mp4(io.BytesIO(box(b"ftyp", b"M4A ")))


@pytest.mark.parametrize("make", [lambda: mp4(PACKETS, AAC), lambda: webm(PACKETS, "A_OPUS", b"OpusHead")])
def test_what_comes_before_the_cut_is_good(make):
    data = make()
    read = containers.mp4 if data[4:8] == b"ftyp" else containers.matroska
    got = []
    with pytest.raises(Damaged):
        for packet in read(io.BytesIO(data[: -len(PACKETS[-1]) - 20])).packets:
            got.append(packet)
    assert got and got == PACKETS[: len(got)]


# --- AAC ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "rate", "channels"),
    [
        ("00010 0100 0010 000", 44100, 2),
        ("00010 1000 0001 000", 16000, 1),
        ("00101 0110 0001 0011 00010 000", 24000, 1),  # HE-AAC: its core
        ("11101 0110 0001 0011 00010 000", 24000, 1),  # with parametric stereo
        ("00010 1111 000000001010110001000100 0010 000", 44100, 2),  # the rate in full
    ],
)
def test_aac_configurations(bits, rate, channels):
    bits = bits.replace(" ", "").ljust(64, "0")
    config = containers.aac_config(int(bits, 2).to_bytes(8, "big"))
    assert (config.rate, config.channels) == (rate, channels)


@pytest.mark.parametrize("setup", [b"", b"\x12", b"\x0a\x10", b"\x12\x30", b"\x12\x14", b"\x17\x90"])
def test_aac_that_is_not_read(setup):
    with pytest.raises(Damaged):
        containers.aac_config(setup)


def test_adts_there_and_back_over_noise():
    config = containers.aac_config(b"\x12\x10")
    stream = containers.to_adts(config, PACKETS)
    cut = len(containers.to_adts(config, PACKETS[:4]))
    noisy = stream[:cut] + b"TAG noise \xff noise" + stream[cut:]
    track = containers.adts(io.BytesIO(noisy))
    assert containers.aac_config(track.setup) == config
    assert list(track.packets) == PACKETS
    with pytest.raises(Damaged):
        containers.adts(io.BytesIO(b"\xff\xf1 nothing"))


# --- Ogg ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subtype", ["OPUS", "VORBIS"])
def test_repacked_ogg_decodes_to_the_same_samples(subtype):
    data = encoded(subtype)
    packets = ogg_packets(data)
    if subtype == "OPUS":
        head, packets = packets[0], packets[2:]
        track = containers.Track("opus", head, iter(packets))
        again = b"".join(containers.ogg_opus(track, 60))
    else:
        setup = b"\2" + xiph([len(p) for p in packets[:2]]) + b"".join(packets[:3])
        track = containers.Track("vorbis", setup, iter(packets[3:]))
        again = b"".join(containers.ogg_vorbis(track, 60))
    whole, _ = soundfile.read(io.BytesIO(data))
    ours, rate = soundfile.read(io.BytesIO(again))
    assert rate == 48_000 and 0 <= len(ours) - len(whole) < 4096  # only the cut at the end is unknown to us
    np.testing.assert_array_equal(ours[: len(whole)], whole)


def test_repacking_stops_at_the_limit():
    packets = ogg_packets(encoded("OPUS", 10))[2:]
    track = containers.Track("opus", ogg_packets(encoded("OPUS", 1))[0], iter(packets))
    sound, _ = soundfile.read(io.BytesIO(b"".join(containers.ogg_opus(track, 2))))
    assert 2 < len(sound) / 48_000 < 4


@pytest.mark.parametrize(
    ("packet", "samples"),
    [
        (b"", 0),
        (bytes([0 << 3 | 0]), 480),
        (bytes([3 << 3 | 1]), 5760),
        (bytes([13 << 3 | 0]), 960),
        (bytes([16 << 3 | 2]), 240),
        (bytes([31 << 3 | 3, 6]), 5760),
        (bytes([31 << 3 | 3, 7]), 0),  # more than 120 ms
        (bytes([31 << 3 | 3]), 0),
    ],
)
def test_length_of_opus_packets(packet, samples):
    assert containers.opus_samples(packet) == samples


def test_headers_that_are_no_headers():
    with pytest.raises(Damaged):
        containers.ogg_vorbis(containers.Track("vorbis", b"\2\1\1" + bytes(99), iter(())), 60)
    with pytest.raises(Damaged):
        containers.ogg_vorbis(containers.Track("vorbis", b"", iter(())), 60)
    with pytest.raises(Damaged):
        containers.caf_alac(containers.Track("alac", bytes(10), iter(())), 60)
    with pytest.raises(Damaged):
        containers.caf_alac(containers.Track("alac", bytes(24), iter(())), 60)
