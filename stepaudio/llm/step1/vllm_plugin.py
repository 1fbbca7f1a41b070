"""Lets stock vLLM (0.32) serve Step-1: no code of the checkpoint is trusted, and a CPU will do.

vLLM finds ``register`` and ``RepetitionWindow`` by their entry points and loads them in each of its
processes. The network itself is vLLM's own ``step1.py``; what it lacks is the configuration class and, on a
CPU, attention with the root of the distance (``vllm_attention``). On GPUs its Triton backend has that.
"""

# pyright: reportMissingImports=false
# vLLM is in an environment of its own.
from __future__ import annotations

from typing import Any

from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from stepaudio.llm.step1.configuration import Step1Config

WINDOW_ARGUMENT = "repetition_window"
"""The request's ``vllm_xargs`` that asks for a ``RepetitionWindow``: how many tokens it looks back."""


def register() -> None:
    """Entry point of ``vllm.general_plugins``. May be called again."""
    from transformers import AutoConfig
    from vllm.platforms import current_platform
    from vllm.transformers_utils.config import _CONFIG_REGISTRY
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    _CONFIG_REGISTRY[Step1Config.model_type] = Step1Config
    AutoConfig.register(Step1Config.model_type, Step1Config, exist_ok=True)
    if current_platform.is_cpu():
        register_backend(AttentionBackendEnum.CPU_ATTN, "stepaudio.llm.step1.vllm_attention.SqrtAlibiBackend")


class RepetitionWindow(AdapterLogitsProcessor):
    """Bans the last token as the next one where it was twice among the last ``repetition_window`` tokens.

    With a window of 10 that is the rule of Step-Audio-TTS-3B, whose prompt counts, too. Entry point of
    ``vllm.logits_processors``; requests that do not ask for it are left alone.
    """

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a window that is no number of tokens: HTTP 400."""
        window = (sampling_params.extra_args or {}).get(WINDOW_ARGUMENT)
        if window is not None and (not isinstance(window, int) or isinstance(window, bool) or window < 2):
            raise ValueError(f"{WINDOW_ARGUMENT} is a number of tokens, 2 or more")

    def is_argmax_invariant(self) -> bool:
        """The likeliest token may be the one that is banned."""
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        """A function (prompt, output, logits) -> logits; None: the request asks for none."""
        window = (params.extra_args or {}).get(WINDOW_ARGUMENT)
        if window is None:
            return None

        def ban(prompt: list[int], output: list[int], logits: Any) -> Any:
            recent = output[-window:]
            if len(recent) < window:
                recent = prompt[len(recent) - window :] + recent
            if len(recent) == window and recent.count(recent[-1]) > 1:
                logits[recent[-1]] = float("-inf")
            return logits

        return ban
