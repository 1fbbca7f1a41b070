"""The error tree. A message tells the user what to do next.

::

    StepAudioError
    ├── ConfigError      a setting, name or flag that cannot be used
    ├── ModelMissing     weights that are not on this machine; the message is the command that gets them
    ├── AudioError       audio that cannot be read, or holds nothing to work on
    ├── TextError        text that cannot be spoken or answered
    │   ├── TagError     an instruction tag, or SSML, that is wrong where it stands
    │   └── ScoreError   a song that cannot be read or sung
    ├── CodesError       audio codes that are out of range or out of order
    ├── ProtocolError    a Realtime event that cannot be obeyed; the client is told, the session goes on
    └── BackendError     an engine or a server failed; ``retryable`` says whether another try may help

Anything else that is raised is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StepAudioError(Exception):
    """Base of every error that a user can cause or mend."""


class ConfigError(StepAudioError):
    """A setting, a name or a flag that cannot be used."""


class ModelMissing(StepAudioError):
    """Weights are not on this machine. The message names the command that gets them."""


class AudioError(StepAudioError):
    """Audio that cannot be read, is too long, or holds nothing to work on."""


class TextError(StepAudioError):
    """Text that cannot be spoken or answered."""


class TagError(TextError):
    """An instruction tag, or SSML, that is wrong where it stands; the message says what to write instead."""


class ScoreError(TextError):
    """A song that cannot be read or sung."""


class CodesError(StepAudioError):
    """Audio codes that are out of range or out of order."""


class ProtocolError(StepAudioError):
    """A Realtime event that cannot be obeyed. The client is told, and the session goes on.

    Args:
        message: what is wrong with it, without repeating its content.
        code: the API's, which clients look at ("invalid_value").
        param: path of the field at fault ("session.audio.output.voice").
        event_id: the client's name for its event.
    """

    def __init__(
        self, message: str, code: str, param: str | None = None, event_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.param, self.event_id = code, param, event_id


class BackendError(StepAudioError):
    """An engine or a server failed.

    Args:
        message: what failed and what to do.
        retryable: whether the same call may succeed later.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


def unknown(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """A ``ConfigError`` for a name that is not there, which offers the nearest ones that are."""
    known = list(known)
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    near += [k for k in known if name and name.lower() in k.lower() and k not in near][: 3 - len(near)]
    more = f", … and {len(known) - 12} more" if len(known) > 12 else ""
    hint = f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(known[:12])}{more}"
    return ConfigError(f"no {kind} named {name!r}; {hint}")
