"""The configuration: one frozen tree, loaded by one function.

Later sources win: built-in defaults < the profile's < ``stepaudio.toml`` < environment < flags. The file is
``./stepaudio.toml``, else ``$XDG_CONFIG_HOME/stepaudio/stepaudio.toml``; ``--config`` names another.
Environment: ``STEPAUDIO_LLM__MODEL=qwen2.5-0.5b`` sets ``llm.model``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from stepaudio.core.errors import ConfigError, unknown

PREFIX = "STEPAUDIO_"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AudioConfig(_Section):
    """Audio files."""

    limit_s: float = Field(default=1800, gt=0, description="longest recording that is read, seconds")


class ModelsConfig(_Section):
    """The model store."""

    root: Path | None = Field(
        default=None, description="folder of the models; default: the user's cache folder"
    )
    local: Annotated[
        tuple[Path, ...], pydantic.BeforeValidator(lambda v: v.split(os.pathsep) if isinstance(v, str) else v)
    ] = Field(default=(), description="folders to look for model files in before anything is downloaded")
    offline: bool = Field(default=False, description="never go to the network")


class RecognitionConfig(_Section):
    """Ears."""

    model: Literal["whisper-base"] = Field(default="whisper-base", description="recognition model")
    language: Literal["auto", "en", "zh"] = Field(
        default="auto", description="language spoken, or auto to detect it"
    )
    threads: int = Field(default=1, ge=1, le=64, description="CPU threads")


class TokenizerConfig(_Section):
    """Speech as Step-Audio's codes."""

    model: str = Field(
        default="step-audio-tokenizer",
        description="model of the store, or a folder that holds Step-Audio-Tokenizer's files",
    )
    device: str = Field(default="cpu", description="cpu, cuda or cuda:N")
    threads: int = Field(default=1, ge=1, le=64, description="CPU threads, of either half")
    window_s: float = Field(
        default=30.0,
        gt=0,
        le=30,
        description="what the semantic half hears at once, seconds; 30 is published",
    )


class LLMConfig(_Section):
    """Mind."""

    model: str = Field(
        default="auto",
        description="auto, a model of the store, a path to a .gguf file or to a folder of Step-Audio-Chat, "
        "or openai:http://host:port/v1",
    )
    reads: Literal["text", "codes"] = Field(
        default="text",
        description="what a server's model is shown of speech: its transcript, or Step-Audio's codes",
    )
    device: str = Field(default="cpu", description="of Step-Audio-Chat in process: cpu, cuda or cuda:N")
    memory_gb: float | None = Field(
        default=None,
        gt=0,
        description="memory that Step-Audio-Chat in process may take; layers beyond are read from disk for "
        "every word; default: as much as it takes",
    )
    name: str | None = Field(
        default=None, description="model name to ask an OpenAI-compatible server for; default: its first"
    )
    api_key: SecretStr | None = Field(default=None, description="key for an OpenAI-compatible server")
    timeout_s: float = Field(default=30, gt=0, description="longest wait for a server's next words, seconds")
    context_tokens: int = Field(
        default=4096, ge=512, description="context; longer talks lose their oldest turns"
    )
    max_tokens: int = Field(default=256, ge=1, description="longest answer, in tokens")
    temperature: float = Field(default=0.0, ge=0, le=2, description="0 gives the same answer every time")
    top_p: float = Field(default=1.0, gt=0, le=1, description="draw from the likeliest words of this share")
    threads: int = Field(default=2, ge=1, le=64, description="CPU threads")
    slots: int = Field(
        default=1,
        ge=1,
        le=64,
        description="talks that the language model keeps in mind, each in a context (0.1 GB) of its own; "
        "`stepaudio serve`: 4 where nothing else is set",
    )
    system: str | None = Field(default=None, description="system prompt in place of the built-in one")


class TTSConfig(_Section):
    """Voice."""

    model: str = Field(
        default="kokoro",
        description="kokoro, step-audio-tts-3b, or a folder that holds Step-Audio-TTS-3B's files",
    )
    server: str | None = Field(
        default=None,
        description="vLLM that draws Step-Audio-TTS-3B's codes, http://host:port/v1; default: in process",
    )
    server_model: str = Field(default="Step-Audio-TTS-3B", description="its name on that server")
    device: str = Field(default="cpu", description="of Step-Audio-TTS-3B: cpu, cuda or cuda:N")
    speakers: Path | None = Field(
        default=None,
        description="folder of Step-Audio's speakers_info.json; default: speakers, in or beside the model",
    )
    voice: str = Field(default="auto", description="voice for all languages, or auto: one per language")
    voice_en: str = Field(default="af_heart", description="voice for English when voice is auto")
    voice_zh: str = Field(default="zf_xiaobei", description="voice for Chinese when voice is auto")
    voices: Path | None = Field(
        default=None, description="folder of mixed and cloned voices; default: in the user's data folder"
    )
    watermark: bool = Field(
        default=True,
        description="mark all speech, inaudibly, so that `stepaudio verify` knows it again; not proof "
        "against somebody who wants to take it out",
    )
    watermark_key: Path | None = Field(
        default=None,
        description="file of the watermark's key; default: in the user's data folder, made at first use",
    )
    fast: str = Field(
        default="hibari",
        description="voice for clauses that the best voice cannot have ready in time; none: never",
    )
    speed: float = Field(default=1.0, ge=0.5, le=2.0, description="1 is as trained, 2 twice as fast")
    unknown_tags: Literal["speak", "drop", "report"] = Field(
        default="speak",
        description="brackets that look like instruction tags and are none: spoken, left out, or (not in "
        "talks) an error",
    )
    colloquial: bool = Field(
        default=True, description="in a dialect, say its own words for those of written Chinese: 我们 -> 我哋"
    )
    experimental: bool = Field(
        default=False, description="allow dialects that are hardly understood yet (Cantonese)"
    )
    threads: int = Field(default=2, ge=1, le=64, description="CPU threads")


_Names = Annotated[
    tuple[str, ...],
    pydantic.BeforeValidator(lambda v: tuple(v.replace(",", " ").split()) if isinstance(v, str) else v),
]


class ServerConfig(_Section):
    """The service."""

    host: str = Field(
        default="127.0.0.1", description="address to listen on; another than loopback wants a key"
    )
    port: int = Field(default=8910, ge=0, le=65535, description="port to listen on; 0: any that is free")
    api_key: SecretStr | None = Field(default=None, description="a key besides those of `stepaudio keys add`")
    keys: Path | None = Field(
        default=None, description="file of the keys' hashes; default: in the user's folder"
    )
    hosts: _Names = Field(default=(), description="names of this machine that pages may be opened under")
    origins: _Names = Field(default=(), description="pages elsewhere that may connect: https://name, …")
    sessions: int | None = Field(
        default=None, ge=1, description="talks at once; default: what was measured at start"
    )
    sessions_per_key: int | None = Field(
        default=None, ge=1, description="talks at once of one key; default: no limit"
    )
    requests_per_minute: int = Field(default=600, ge=1, description="HTTP requests and new talks of one key")
    upload_mb: float = Field(default=25, gt=0, description="largest audio file that is taken, MB")
    strict_models: bool = Field(default=False, description="refuse model names that are not listed")
    record: Path | None = Field(
        default=None,
        description="folder to record talks into, with speech and words; default: nothing is recorded",
    )
    drain_s: float = Field(
        default=10, ge=0, description="at the end: longest wait for answers under way, seconds"
    )


class Config(_Section):
    """The whole tree."""

    profile: Literal["embedded", "step"] = Field(default="embedded", description="set of defaults")
    audio: AudioConfig = AudioConfig()
    models: ModelsConfig = ModelsConfig()
    recognition: RecognitionConfig = RecognitionConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    llm: LLMConfig = LLMConfig()
    tts: TTSConfig = TTSConfig()
    server: ServerConfig = ServerConfig()


STEP_SYSTEM = "适配用户的语言，用简短口语化的文字回答"
"""The system prompt that Step-Audio-Chat's own program gives it: the user's language, short spoken words."""

PROFILES: Mapping[str, Mapping[str, Any]] = {
    "embedded": {},
    "step": {  # sampling as Step-Audio's own program has it, but for the length
        "llm.reads": "codes",
        "llm.temperature": 0.7,
        "llm.top_p": 0.9,
        "llm.context_tokens": 8192,
        "llm.system": STEP_SYSTEM,
        "tts.model": "step-audio-tts-3b",
    },
}
"""What profiles set where nobody sets it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where each value came from: "default", a profile, a file, a variable, "flag"."""

    config: Config
    origins: Mapping[str, str]

    def rows(self) -> list[tuple[str, str, str]]:
        """(dotted name, value, origin) of every setting; secrets are masked."""
        return [(name, str(_get(self.config, name)), self.origins[name]) for name in names()]


def names() -> list[str]:
    """The dotted names of all settings, in the order of the tree."""
    found = []
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            found += [f"{name}.{key}" for key in section.model_fields]
        else:
            found.append(name)
    return found


def default_file(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The configuration file that is read when none is named, or None: there is none."""
    home = environment.get("XDG_CONFIG_HOME") or str(
        Path(environment.get("HOME", "~")).expanduser() / ".config"
    )
    candidates = (Path("stepaudio.toml"), Path(home) / "stepaudio" / "stepaudio.toml")
    return next((path for path in candidates if path.is_file()), None)


def load(
    file: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Loaded:
    """Read the configuration.

    Args:
        file: a TOML file; None reads ``default_file()`` when it is there.
        environment: variables ``STEPAUDIO_SECTION__KEY``.
        flags: dotted names and values; None values are skipped.
        defaults: what the command sets where nobody else does, not even the profile.

    Raises:
        ConfigError: a file that cannot be read, a setting that does not exist (the nearest are named),
            or a value that does not fit.
    """
    known = names()
    values: dict[str, Any] = {}
    origins = dict.fromkeys(known, "default")

    def put(name: str, value: Any, origin: str) -> None:
        if name not in origins:
            raise ConfigError(f"{origin}: {unknown('setting', name, known)}")
        values[name], origins[name] = value, origin

    path = file or default_file(environment)
    if path is not None:
        for name, value in _flatten(_read_toml(path)):
            put(name, value, str(path))
    for variable in sorted(environment):
        if variable.startswith(PREFIX):
            put(variable[len(PREFIX) :].lower().replace("__", "."), environment[variable], variable)
    for name, value in (flags or {}).items():
        if value is not None:
            put(name, value, "flag")
    profile = str(values.get("profile", "embedded"))
    for name, value in PROFILES.get(profile, {}).items():
        if name not in values:
            put(name, value, f"profile {profile}")
    for name, value in (defaults or {}).items():
        if name not in values:
            put(name, value, "default")

    tree: dict[str, Any] = {}
    for name, value in values.items():
        *section, key = name.split(".")
        (tree.setdefault(section[0], {}) if section else tree)[key] = value
    try:
        return Loaded(Config.model_validate(tree), origins)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"] if isinstance(part, str))
        origin = next((origins[n] for n in known if name == n or name.startswith(n)), "configuration")
        shown = "" if "api_key" in name else f" (given: {problem['input']!r})"
        raise ConfigError(f"{name} from {origin}: {problem['msg']}{shown}") from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as source:
            return tomllib.load(source)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def _flatten(tree: Mapping[str, Any]) -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            flat += [(f"{key}.{inner}", item) for inner, item in value.items()]
        else:
            flat.append((key, value))
    return flat


def parse_flag(text: str) -> tuple[str, str]:
    """``"section.key=value"`` as a pair.

    Raises:
        ConfigError: there is no ``=``.
    """
    name, found, value = text.partition("=")
    if not found:
        raise ConfigError(f"flag {text!r}: write it as section.key=value")
    return name.strip(), value.strip()


def _get(config: Config, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value
