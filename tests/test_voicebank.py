"""Mixes by expression, and voices that are kept: whole files, damaged ones, names, removal."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stepaudio.core.errors import ConfigError, StepAudioError
from stepaudio.tts.base import Voice
from stepaudio.tts.voicebank import Character, KeptVoice, VoiceBank, default_folder, mixed
from stepaudio.tts.voices import find, parse_mix


def table(value: float) -> np.ndarray:
    return np.full((510, 1, 256), value, np.float32)


def clone(name: str = "anna", **character: float) -> KeptVoice:
    voice = Voice(name, "kokoro", "en-US", "female", "LicenseRef-speaker-consent", "cloned")
    filter = np.array([0.1, 0.8, 0.1], np.float32)
    made = Character(
        table(0.25), "en-US", **character, equaliser=filter, measured={"energies": np.array([1.0, 2.0])}
    )
    return KeptVoice(
        voice, "cloned from 20 s", made, {"likeness": 0.8, "consent": {"heard": "yes"}}, b"fLaC1"
    )


@pytest.fixture
def bank(tmp_path: Path) -> VoiceBank:
    return VoiceBank(tmp_path / "data" / "voices")


# Mixes


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("af_heart*0.6+am_adam*0.4", "af_heart*0.6+am_adam*0.4"),
        ("af_heart * 3 + am_adam", "af_heart*0.75+am_adam*0.25"),
        ("af_heart/am_michael", "af_heart/am_michael"),
        ("af_heart*2", "af_heart"),
        ("af_heart+af_heart+am_adam*2", "af_heart*0.5+am_adam*0.5"),
        ("nova/af_bella+am_adam", "af_nova/af_bella*0.5+am_adam*0.5"),  # OpenAI's name
    ],
)
def test_an_expression_and_how_it_is_named(written: str, canonical: str) -> None:
    mix = parse_mix(written)
    assert str(mix) == canonical
    assert str(parse_mix(str(mix))) == canonical
    assert sum(share for _, share in mix.timbre) == pytest.approx(1)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("af_heart*0+am_adam", "above 0"),
        ("af_heart*-1", "above 0"),
        ("af_heart*nan", "above 0"),
        ("af_heart*inf", "above 0"),
        ("af_heart*much", "like af_heart"),
        ("af_heart+", "like af_heart"),
        ("/af_heart", "like af_heart"),
        ("af_heart/am_adam/af_bella", "more than one /"),
        ("af_heart+af_hart", "did you mean af_heart"),
        ("af_heart+hibari", "only Kokoro's"),
        ("+".join(f"{name}*1" for name in "af_heart af_alloy af_aoede af_bella af_jessica af_kore "
                  "af_nicole af_nova af_river".split()), "8 at most"),
    ],
)  # fmt: skip
def test_bad_expressions_say_how_to_write_one(written: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_mix(written)


def test_a_mix_is_listed_like_its_largest_shares() -> None:
    voice = find("am_adam*0.4+bf_emma*0.6/zf_xiaobei")
    assert (voice.gender, voice.language, voice.origin) == ("female", "cmn", "mixed")
    assert voice.engine == "kokoro" and voice.licence == "Apache-2.0"


def test_halves_are_mixed_apart() -> None:
    values = {"af_heart": 1.0, "am_adam": 3.0, "am_echo": 10.0}
    character = mixed(parse_mix("af_heart*0.25+am_adam*0.75/am_echo"), lambda voice: table(values[voice]))
    assert np.allclose(character.table[..., :128], 2.5) and np.allclose(character.table[..., 128:], 10)
    assert character.table.dtype == np.float32 and character.table.shape == (510, 1, 256)


# Melody


def test_a_melody_is_moved_and_widened_around_its_middle_and_unvoiced_stays() -> None:
    character = Character(table(0), "en-US", centre_hz=100.0, shift=12.0, spread=2.0)
    assert character.melody(np.array([100, 200, 50, 5, 40], np.float32)) == pytest.approx(
        [200, 800, 50, 5, 40]
    )
    assert np.array_equal(
        Character(table(0), "en-US").melody(np.array([123.4], np.float32)), np.array([123.4], np.float32)
    )


# Keeping


def test_what_is_kept_comes_back(bank: VoiceBank) -> None:
    bank.keep(clone(centre_hz=180.0, shift=-1.5, spread=0.9, tempo=1.1))
    found = bank.load("anna")
    assert found.voice == clone().voice and found.recipe == "cloned from 20 s" and found.consent == b"fLaC1"
    assert found.facts["likeness"] == 0.8 and found.facts["consent"] == {"heard": "yes"}
    character = found.character
    assert (character.centre_hz, character.shift, character.spread, character.tempo) == (180, -1.5, 0.9, 1.1)
    assert np.array_equal(character.table, table(0.25)) and character.equaliser.shape == (3,)
    assert np.array_equal(character.measured["energies"], [1.0, 2.0]) and "table" not in character.measured
    assert bank.voices() == (found.voice,) and bank.find("anna") == found.voice


def test_a_folder_that_is_not_there_holds_nothing(bank: VoiceBank) -> None:
    assert bank.voices() == () and bank.stamp("anna") is None
    assert bank.find("af_heart").origin == "stock" and bank.find("af_heart/am_adam").origin == "mixed"
    assert bank.find("marin").id == "af_heart"
    assert not bank.folder.exists()


def test_another_bank_on_the_folder_sees_it_at_once_and_the_folder_is_private(bank: VoiceBank) -> None:
    other = VoiceBank(bank.folder)
    bank.keep(clone())
    assert other.find("anna").origin == "cloned" and other.stamp("anna")
    assert bank.folder.stat().st_mode & 0o077 == 0


def test_removing_leaves_nothing(bank: VoiceBank) -> None:
    bank.keep(clone())
    bank.remove("anna")
    assert list(bank.folder.iterdir()) == [] and bank.voices() == ()
    with pytest.raises(ConfigError, match="no voice named 'anna' was kept"):
        bank.remove("anna")
    with pytest.raises(ConfigError, match="stock voice"):
        bank.remove("af_heart")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "a letter"),
        ("../anna", "a letter"),
        ("7of9", "a letter"),
        ("a" * 41, "a letter"),
        ("af_heart", "taken"),
        ("alloy", "taken"),
        ("auto", "taken"),
    ],
)
def test_names_that_cannot_be(bank: VoiceBank, name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        bank.keep(clone(name))
    assert bank.stamp(name) is None and not bank.folder.exists()


def test_a_name_is_not_overwritten(bank: VoiceBank) -> None:
    bank.keep(clone())
    with pytest.raises(ConfigError, match="stepaudio voices remove anna"):
        bank.keep(clone())


def test_names_near_a_kept_one_are_offered(bank: VoiceBank) -> None:
    bank.keep(clone())
    with pytest.raises(ConfigError, match="did you mean anna"):
        bank.find("ana")


def test_clones_are_not_mixed(bank: VoiceBank) -> None:
    bank.keep(clone())
    with pytest.raises(ConfigError, match="'anna' is a kept voice, and only stock voices are mixed"):
        bank.find("anna*0.5+af_heart*0.5")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StepAudioError, match=r"tts\.voices"):
        VoiceBank(tmp_path / "file" / "voices").keep(clone())


def archive(path: Path, **changes: bytes | None) -> None:
    """A copy of a kept voice with other members."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members |= {name.replace("_", "."): value for name, value in changes.items()}  # type: ignore[arg-type]
    with zipfile.ZipFile(path, "w") as file:
        for name, value in members.items():
            if value is not None:
                file.writestr(name, value)


@pytest.mark.parametrize("kind", ["cut", "empty", "no json", "no arrays", "another table", "no member"])
def test_a_damaged_file_is_told_and_does_not_hide_the_others(bank: VoiceBank, kind: str) -> None:
    path = bank.keep(clone())
    bank.keep(clone("bert"))
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no json":
        archive(path, voice_json=b"{")
    elif kind == "no arrays":
        archive(path, arrays_npz=b"PK")
    elif kind == "no member":
        archive(path, arrays_npz=None)
    else:
        np.savez(path.with_suffix(".npz"), table=table(0)[:5], equaliser=np.zeros(0, np.float32))
        archive(path, arrays_npz=path.with_suffix(".npz").read_bytes())
    with pytest.raises(ConfigError, match="stepaudio voices remove anna"):
        bank.load("anna")
    assert bank.load("bert").recipe
    assert "bert" in [voice.id for voice in bank.voices()]
    bank.remove("anna")


def test_a_newer_format_asks_for_a_newer_program(bank: VoiceBank) -> None:
    path = bank.keep(clone())
    description = bank.show("anna") | {"format": 99}
    archive(path, voice_json=json.dumps(description).encode())
    with pytest.raises(ConfigError, match="newer program"):
        bank.find("anna")


def test_the_folder_is_in_the_users_data_folder() -> None:
    assert default_folder({"XDG_DATA_HOME": "/d"}) == Path("/d/stepaudio/voices")
    assert default_folder({"HOME": "/h", "XDG_DATA_HOME": "relative"}) == Path(
        "/h/.local/share/stepaudio/voices"
    )
