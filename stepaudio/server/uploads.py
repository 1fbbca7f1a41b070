"""Sound that strangers send, decoded where it can do no harm.

Decoders are large programs that read hostile bytes, so each upload is decoded in a process of its own
(``python -m stepaudio.server.uploads``): it may take so much memory, so much processor time, and write no
large file; a clock on the wall watches it from outside. What comes back is a number of samples, no more than
are allowed. One process is kept ready, because starting it takes longer than decoding most uploads.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import os
import struct
import sys
from typing import Any

import numpy as np

from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import AudioError, StepAudioError
from stepaudio.recognition.base import RATE
from stepaudio.server.errors import invalid

MEMORY_BYTES = 2_000_000_000
"""Address space of one process; 0.4 GB suffice for ten minutes of stereo at 48 kHz."""
CPU_S = 30
"""Processor time; ten minutes of stereo FLAC at 48 kHz take 2 s."""
FILE_BYTES = 4_000_000
"""Largest file that the process may write: the AAC decoder reads its packets from small ones."""
WALL_S = 60
"""Of waiting for it, on a loaded machine."""
AT_ONCE = 2
"""Processes that decode at the same time."""
_HEADER = struct.Struct("<dQ")  # seconds allowed, bytes that follow


class Decoder:
    """Decodes uploads, each in a process of its own. For one event loop; close it.

    Args:
        limit_s: longest sound, seconds.
        memory_bytes, cpu_s, wall_s: what one process may take.
    """

    def __init__(
        self,
        limit_s: float,
        memory_bytes: int = MEMORY_BYTES,
        cpu_s: int = CPU_S,
        wall_s: float = WALL_S,
    ) -> None:
        self._limit_s, self._memory_bytes, self._cpu_s, self._wall_s = limit_s, memory_bytes, cpu_s, wall_s
        self._places = asyncio.Semaphore(AT_ONCE)
        self._ready: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Have a process ready."""
        if self._ready is None:
            self._ready = await self._spawn()

    async def decode(self, data: bytes) -> AudioChunk:
        """The sound of a file, mono at 16 kHz.

        Raises:
            AudioError: it is no sound, damaged, too long, or takes too much to decode; see ``read_audio``.
        """
        async with self._places:
            process, self._ready = self._ready, None
            if process is None or process.returncode is not None:
                process = await self._spawn()
            try:
                try:
                    async with asyncio.timeout(self._wall_s):
                        out, _ = await process.communicate(_HEADER.pack(self._limit_s, len(data)) + data)
                except TimeoutError:
                    raise AudioError("the audio takes too long to decode; convert it to wav") from None
            finally:
                await _end(process)
            await self.start()
        return _result(out, process.returncode)

    async def close(self) -> None:
        """End the process that is ready."""
        process, self._ready = self._ready, None
        if process is not None:
            await _end(process)

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "stepaudio.server.uploads",
            str(self._memory_bytes),
            str(self._cpu_s),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C in the terminal is the service's to handle
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())


def _result(out: bytes, status: int | None) -> AudioChunk:
    head, _, samples = out.partition(b"\n")
    with contextlib.suppress(ValueError):
        told: dict[str, Any] = json.loads(head)
        if "error" in told:
            raise AudioError(told["error"])
        if status == 0 and len(samples) == 4 * told["samples"]:
            return AudioChunk(np.frombuffer(samples, "<f4").astype(np.float32), RATE)
    raise AudioError("the audio is damaged, or takes too much memory or time to decode; convert it to wav")


def from_base64(text: str, param: str) -> bytes:
    """The bytes of base64, plain or in a ``data:`` URL.

    Raises:
        ApiError: 400: it is another URL or a path, which are never opened, or no base64.
    """
    if text.startswith("data:"):
        head, found, text = text.partition(",")
        if not found or not head.endswith(";base64"):
            raise invalid("the data URL must hold base64: data:audio/wav;base64,…", param)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise invalid(
            "this must be base64 or a data URL; addresses and paths are not opened", param
        ) from None


# The other process


def _confine(memory_bytes: int, cpu_s: int) -> None:
    """Bound this process, where the system can: not on Windows."""
    try:
        import resource
    except ImportError:
        return
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS has no bound on address space
            resource.setrlimit(kind, (most, most))
    with contextlib.suppress(OSError):
        os.nice(5)  # talks go first


def _main() -> None:
    from stepaudio.files import read_audio

    _confine(int(sys.argv[1]), int(sys.argv[2]))
    header = sys.stdin.buffer.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return  # the service ended
    limit_s, size = _HEADER.unpack(header)
    try:
        sound = read_audio(sys.stdin.buffer.read(size), RATE, limit_s)
    except StepAudioError as error:
        sys.stdout.buffer.write(json.dumps({"error": str(error)}).encode() + b"\n")
        return
    samples = sound.samples.astype("<f4", copy=False)
    sys.stdout.buffer.write(json.dumps({"samples": len(samples)}).encode() + b"\n" + samples.tobytes())


if __name__ == "__main__":
    _main()
