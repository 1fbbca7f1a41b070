"""How somebody asks to be spoken to: "sing me …", "tell me in a sad voice", "用四川话…".

Large speech models learn to answer such a request with a tag of their own. Small language models do not: of
seven requests Qwen2.5 1.5B answered two with the right tag when the system prompt told it the tags, and told
how to boil an egg with "(sing)" at its end. And "in one short sentence" leaves nothing to sing. So requests
are read by rule: they give the answer its manner, and a model that shall write a song is told to be a
songwriter. A tag that the model writes all the same holds from there on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from stepaudio.core.conversation import Message
from stepaudio.core.style import NO_STYLE, SpeechStyle
from stepaudio.core.tags import BY_NAME

LONGEST = 300
"""Characters at the beginning of what was said that are looked at."""


_POLITE = (
    r"(?:(?:please|now|so|then|and|ok(?:ay)?|hey|hi|hello|well|great|good|can you|could you|would you|"
    r"will you|i want you to|i(?:'d| would) like you to|let me hear you|try to|just)\b[, ]*)*"
)
_MODE = re.compile(rf"(?:^|[.!?,;:])\s*{_POLITE}(sing|hum|rap|whisper)\b(?! (?:is|was|means|battle|music))")
_QUESTION = re.compile(rf"{_POLITE}(?:how|what|who|whose|why|when|where|which|do|does|did|is|are|was|were)\b")
_MANNER = re.compile(
    r"\b(?:say|speak|talk|tell|answer|read|reply|greet|repeat)\b[^.?!]{0,80}?"
    r"\b(?:in|with) (?:an? |the )?(?:very )?([a-z]+)(?: (?:voice|tone|way|mood|accent|dialect))?(?=$|[ ,.?!])"
)
_HOW = re.compile(
    r"\b(?:say|speak|talk|tell|answer|read|reply|repeat)\b[^.?!]{0,60}? ([a-z]+ly)(?=$|[ ,.?!])"
)
_ASKED = r"(?:^|[，。！？,.!? ]|给我|为我|给大家|请|你|能|可以|再|来|帮我|现在|想听|听你)"
_MODES_HAN: tuple[tuple[re.Pattern[str], Literal["rap", "sing", "hum", "whisper"]], ...] = (
    (re.compile(rf"{_ASKED}(?:来|唱|说|讲|表演)一?[段首个][^，。！？]{{0,12}}?(?:rap|说唱|饶舌)"), "rap"),
    (re.compile(rf"{_ASKED}(?:唱|演唱)(?:一下|一?[首支个段曲]|歌|个歌|《)"), "sing"),
    (re.compile(rf"{_ASKED}哼(?:唱)?(?:一下|一?[首支个段曲]|歌|《)"), "hum"),
    (re.compile(r"(?:悄悄地?|小声地?|轻轻地?|耳语)(?:说|讲|告诉|对我|跟我)"), "whisper"),
)
_MANNER_HAN = re.compile(
    r"用(?:很|非常)?([㐀-鿿]{2,4}?)的?(?:语气|声音|口气|口吻|腔调|方式)?(?:来)?(?:说|讲|回答|告诉|跟|和|念|读|打|介绍|问)"
)

_SONGWRITER = (
    "You are a songwriter. Your reply is sung as it stands: write only lyrics, a verse of four short lines.",
    "你是词作者。你的回答会被直接唱出来：只写歌词，四句，每句不超过八个字。",
)
_RAPPER = (
    "You are a rapper. Your reply is rapped as it stands: write only the rap, four short lines that rhyme.",
    "你是说唱词作者。你的回答会被直接唱出来：只写词，四句，押韵，每句不超过八个字。",
)
"""In the place of the service's own instructions: "one short sentence" is no song. Of eight requests Qwen2.5
1.5B wrote something to sing for three when a line about it stood beside the request, and for seven so."""


def wish(said: str) -> SpeechStyle:
    """The manner that was asked for in what a user said; ``NO_STYLE`` for nearly everything that people say.

    >>> wish("Could you sing me a song about rain?").mode
    'sing'
    >>> wish("Who sings this song?") == NO_STYLE
    True
    """
    said = said[:LONGEST].strip()
    small = said.lower().replace("’", "'")
    if _is_chinese(said):
        for pattern, mode in _MODES_HAN:
            if pattern.search(small):
                return SpeechStyle(mode=mode)
        names = [_MANNER_HAN.search(said)]
    elif found := _MODE.search(small):
        return BY_NAME[found[1]].style
    elif _QUESTION.match(small):
        return NO_STYLE
    else:
        names = [_MANNER.search(small), _HOW.search(small)]
    for found in names:
        tag = BY_NAME.get(found[1]) if found else None
        if tag is not None and not tag.is_point and not tag.around:
            return tag.style
    return NO_STYLE


def granted(messages: Sequence[Message], instructions: str) -> tuple[list[Message], SpeechStyle]:
    """A conversation, and the style of the answer to it, as its last message asks.

    Args:
        messages: the last one is the user's, or nothing is asked.
        instructions: the service's own, which a songwriter's replace; others stay before them.
    """
    last = messages[-1] if messages else None
    if last is None or last.role != "user":
        return list(messages), NO_STYLE
    style = wish(last.text)
    if style.mode not in ("sing", "hum", "rap"):
        return list(messages), style
    author = (_RAPPER if style.mode == "rap" else _SONGWRITER)[_is_chinese(last.text)]
    kept = [m for m in messages if (m.role, m.text) != ("system", instructions)]
    place = next((i for i, m in enumerate(kept) if m.role != "system"), 0)
    return [*kept[:place], Message("system", author), *kept[place:]], style


def _is_chinese(text: str) -> bool:
    return any("㐀" <= char <= "鿿" for char in text)
