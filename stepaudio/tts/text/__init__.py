"""Text made speakable, and pronounced.

A text as written goes through three steps: ``markup`` takes out what nobody says, ``english`` and
``chinese`` turn numbers, signs and abbreviations into words, and ``pronouncer`` finds the phonemes (``mandarin`` for
Chinese characters). Every spoken piece knows its written piece, so that captions and "what was
heard" follow.
"""

from stepaudio.tts.text.pronouncer import Pronouncer, SpokenWord, phonemes

__all__ = ["Pronouncer", "SpokenWord", "phonemes"]
