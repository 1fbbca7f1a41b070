"""Step-1's words: a SentencePiece model, and special tokens whose ids are fixed.

Ids below 65,536 are text and control (``<s>`` 1, ``<|EOT|>`` 3, ``<|BOT|>`` 4); ``<audio_N>`` is 65,536 + N.
A control token that stands in a text is text: nobody ends a turn by writing ``<|EOT|>``.

SentencePiece puts a word start before a text. The published voice encodes piece by piece and so has one in
each (``encode``); the published chat encodes a whole talk, where only special tokens stand before a turn's
text, and has none (``inside``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepaudio.checkpoint import present
from stepaudio.core.codes import FIRST_ID, MERGED_CODES
from stepaudio.core.errors import ConfigError
from stepaudio.llm.step1 import chat

FILE = "tokenizer.model"

_FIXED = {
    chat.START: chat.START_ID,
    chat.END_OF_TURN: chat.END_OF_TURN_ID,
    chat.BEGIN_OF_TURN: chat.BEGIN_OF_TURN_ID,
}
_CONTROL = re.compile("|".join(map(re.escape, _FIXED)))
_AUDIO = re.compile(r"<audio_([0-9]{1,4})>")


class Step1Tokenizer:
    """The tokenizer of a checkpoint folder.

    Args:
        path: of the folder, or of its ``tokenizer.model``.

    Raises:
        ModelMissing: there is none, or a Git LFS pointer lies in its place.
        ConfigError: the file is damaged, or of another model.
    """

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor
        from sentencepiece import sentencepiece_model_pb2 as protocol

        file = present(path / FILE if path.is_dir() else path)
        try:
            whole = SentencePieceProcessor(model_proto=file.read_bytes())
            proto = protocol.ModelProto.FromString(  # pyright: ignore[reportAttributeAccessIssue]
                whole.serialized_model_proto()
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"{file} cannot be read as a SentencePiece model: fetch it again") from error
        proto.normalizer_spec.add_dummy_prefix = False
        self._whole = whole
        self._bare = SentencePieceProcessor(model_proto=proto.SerializeToString())
        self.size = max(whole.get_piece_size(), FIRST_ID + MERGED_CODES)
        names = {**_FIXED, "<audio_0>": FIRST_ID, f"<audio_{MERGED_CODES - 1}>": FIRST_ID + MERGED_CODES - 1}
        for name, token in names.items():
            if token < whole.get_piece_size() and whole.id_to_piece(token) != name:
                raise ConfigError(
                    f"{file} is of another model: its token {token} is {whole.id_to_piece(token)!r} and "
                    f"should be {name!r}"
                )

    def encode(self, text: str) -> list[int]:
        """Ids of a text as SentencePiece alone gives them, a word start before it; nothing is added."""
        return self._encode(self._whole, text)

    def inside(self, text: str) -> list[int]:
        """Ids of a text that follows a special token; ``<audio_N>`` in it are tokens of audio."""
        ids: list[int] = []
        at = 0
        for found in _AUDIO.finditer(text):
            if int(found[1]) < MERGED_CODES:
                ids += self._encode(self._bare, text[at : found.start()])
                ids.append(FIRST_ID + int(found[1]))
                at = found.end()
        return ids + self._encode(self._bare, text[at:])

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Ids of a talk, ready for the answer; see ``chat.render``."""
        ids = [chat.START_ID]
        for token, text in chat.pieces(messages):
            ids += self.inside(text) if token is None else [token]
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; audio as ``<audio_N>``, control tokens as nothing."""
        text, words = [], []
        for token in [*ids, FIRST_ID + MERGED_CODES]:
            if token < FIRST_ID:
                if token not in _FIXED.values():
                    words.append(token)
                continue
            text.append(self._bare.decode(words))
            words = []
            if token < FIRST_ID + MERGED_CODES:
                text.append(f"<audio_{token - FIRST_ID}>")
        return "".join(text)

    def _encode(self, processor: Any, text: str) -> list[int]:
        """As the processor does, with the names of control tokens broken up."""
        if not _CONTROL.search(text):
            return processor.encode(text)
        parts = re.split(f"(?<=<)(?={'|'.join(re.escape(name[1:]) for name in _FIXED)})", text)
        first, *rest = parts
        return [*processor.encode(first), *(i for part in rest for i in self._bare.encode(part))]
