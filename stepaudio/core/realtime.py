"""The Realtime session: what a client and the engines say goes in, what to send and to do comes out.

Sans-IO: no clock, no task, no model, no socket. ``RealtimeSession.receive`` takes one event and returns a
list, in order: server events (``protocol``), to be written to the socket, and ``commands``, to be carried out
by the driver. The clock is the audio that was appended; ids come from the caller.
"""

from __future__ import annotations

from stepaudio.core.commands import (
    AppendAudio as AppendAudio,
)
from stepaudio.core.commands import (
    AudioTurn as AudioTurn,
)
from stepaudio.core.commands import (
    ClearAudio as ClearAudio,
)
from stepaudio.core.commands import (
    Closed as Closed,
)
from stepaudio.core.commands import (
    CloseSession as CloseSession,
)
from stepaudio.core.commands import (
    Command as Command,
)
from stepaudio.core.commands import (
    EngineEvent as EngineEvent,
)
from stepaudio.core.commands import (
    Expired as Expired,
)
from stepaudio.core.commands import (
    Played as Played,
)
from stepaudio.core.commands import (
    ReleaseResponse as ReleaseResponse,
)
from stepaudio.core.commands import (
    ResponseAudio as ResponseAudio,
)
from stepaudio.core.commands import (
    ResponseFinished as ResponseFinished,
)
from stepaudio.core.commands import (
    ResponseText as ResponseText,
)
from stepaudio.core.commands import (
    ResponseToolCall as ResponseToolCall,
)
from stepaudio.core.commands import (
    SettingsChanged as SettingsChanged,
)
from stepaudio.core.commands import (
    StartResponse as StartResponse,
)
from stepaudio.core.commands import (
    StopResponse as StopResponse,
)
from stepaudio.core.commands import (
    TokenUsage as TokenUsage,
)
from stepaudio.core.commands import (
    Transcribe as Transcribe,
)
from stepaudio.core.commands import (
    Transcribed as Transcribed,
)
from stepaudio.core.commands import (
    TranscriptionFailed as TranscriptionFailed,
)
