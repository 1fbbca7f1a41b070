"""Talk with a model on your own machine: a spoken question gets a spoken answer.

>>> import stepaudio
>>> assistant = stepaudio.load()  # the models must be there: `stepaudio models pull`
>>> answer = assistant.ask("question.wav")
>>> answer.text
'The capital of Australia is Canberra.'
>>> answer.save("answer.wav")

``load`` returns an ``Engine``; its ``ask``, ``say`` and ``transcribe`` are all there is to know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepaudio.engine import Answer, Engine, load

__version__ = "0.1.0"
__all__ = ["Answer", "Engine", "load"]


def __getattr__(name: str) -> Any:
    # Loaded when first used, so that `import stepaudio` stays light.
    if name in __all__:
        from stepaudio import engine

        return getattr(engine, name)
    raise AttributeError(f"module 'stepaudio' has no attribute {name!r}")
