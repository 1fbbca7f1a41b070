"""Order of the sources, where values came from, and errors that say where to look."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepaudio import config
from stepaudio.core.errors import ConfigError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_alone():
    loaded = config.load(environment={})
    assert loaded.config == config.Config.model_validate({})
    assert set(loaded.origins.values()) == {"default"} and list(loaded.origins) == config.names()


def test_a_command_sets_what_nobody_else_does():
    def slots(flags: dict[str, object]) -> tuple[int, str]:
        loaded = config.load(None, {}, flags, {"llm.slots": 4})
        return loaded.config.llm.slots, loaded.origins["llm.slots"]

    assert slots({}) == (4, "default")
    assert slots({"llm.slots": 2}) == (2, "flag")


def test_flags_over_environment_over_file_over_defaults(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('[llm]\nmodel = "a"\nname = "b"\nmax_tokens = 7\n[tts]\nspeed = 1.5\n')
    environment = {"STEPAUDIO_LLM__MODEL": "c", "STEPAUDIO_LLM__NAME": "d", "OTHER": "x"}
    loaded = config.load(file, environment, {"llm.model": "e", "tts.voice": None})
    llm = loaded.config.llm
    assert (llm.model, llm.name, llm.max_tokens) == ("e", "d", 7)
    assert loaded.config.tts.speed == 1.5 and loaded.config.tts.voice == "auto"
    assert loaded.origins["llm.model"] == "flag"
    assert loaded.origins["llm.name"] == "STEPAUDIO_LLM__NAME"
    assert loaded.origins["tts.speed"] == str(file)
    assert loaded.origins["tts.voice"] == "default"


def test_flags_as_text():
    loaded = config.load(
        environment={}, flags=dict(map(config.parse_flag, ["tts.speed=0.8", "models.local = /a:/b"]))
    )
    assert loaded.config.tts.speed == 0.8 and loaded.config.models.local == (Path("/a"), Path("/b"))


def test_the_file_is_found_here_or_in_the_users_configuration(tmp_path):
    assert config.default_file({"HOME": str(tmp_path)}) is None
    home = tmp_path / ".config" / "stepaudio"
    home.mkdir(parents=True)
    (home / "stepaudio.toml").write_text("[audio]\nlimit_s = 60\n")
    assert config.load(environment={"HOME": str(tmp_path)}).config.audio.limit_s == 60
    Path("stepaudio.toml").write_text("[audio]\nlimit_s = 30\n")
    assert config.load(environment={"HOME": str(tmp_path)}).config.audio.limit_s == 30


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["llm.modle=x"], "flag: no setting named 'llm.modle'; did you mean llm.model"),
        (["tts.speed=9"], "tts.speed from flag: "),
        (["tts.speed=fast"], "given: 'fast'"),
        (["recognition.language=xx"], "'en'"),
        (["audio"], "section.key=value"),
        (["models.local=/a", "audio=3"], "no setting named 'audio'"),
    ],
)
def test_bad_values(flags, says):
    with pytest.raises(ConfigError) as caught:
        config.load(environment={}, flags=dict(map(config.parse_flag, flags)))
    assert says in str(caught.value)


def test_bad_environment_and_files(tmp_path):
    with pytest.raises(ConfigError, match="STEPAUDIO_TTS__SPED: no setting"):
        config.load(environment={"STEPAUDIO_TTS__SPED": "1"})
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "missing.toml", {})
    bad = tmp_path / "bad.toml"
    bad.write_text("= 3")
    with pytest.raises(ConfigError, match="not TOML"):
        config.load(bad, {})
    bad.write_text("[llm.deep]\nx = 1\n")
    with pytest.raises(ConfigError, match=r"llm\.deep"):
        config.load(bad, {})


def test_secrets_are_not_shown():
    loaded = config.load(environment={"STEPAUDIO_LLM__API_KEY": "sk-secret"})
    assert loaded.config.llm.api_key is not None
    assert loaded.config.llm.api_key.get_secret_value() == "sk-secret"
    assert not any("sk-secret" in value for _, value, _ in loaded.rows())
    assert {name: origin for name, _, origin in loaded.rows()}["llm.api_key"] == "STEPAUDIO_LLM__API_KEY"
    with pytest.raises(ConfigError) as caught:
        config.load(environment={}, flags={"llm.api_key": ["sk-secret"]})
    assert "sk-secret" not in str(caught.value)


def test_a_profile_sets_what_nobody_sets():
    loaded = config.load(environment={"STEPAUDIO_PROFILE": "step", "STEPAUDIO_LLM__TOP_P": "0.5"})
    origins = {name: origin for name, _, origin in loaded.rows()}
    assert loaded.config.llm.reads == "codes" and loaded.config.tts.model == "step-audio-tts-3b"
    assert (origins["llm.reads"], origins["llm.top_p"]) == ("profile step", "STEPAUDIO_LLM__TOP_P")
    assert loaded.config.llm.top_p == 0.5
    with pytest.raises(ConfigError, match="profile from flag"):
        config.load(environment={}, flags={"profile": "steps"})
