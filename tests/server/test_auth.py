"""Keys, client secrets, names and origins: who gets in, decided without a socket."""

from __future__ import annotations

import json
import stat

import pytest

from stepaudio import cli
from stepaudio.core.errors import ConfigError
from stepaudio.server import auth
from stepaudio.server.auth import ANONYMOUS, SCOPES, Auth, Caller, Key
from stepaudio.server.errors import ApiError

KEY = "sk-step-0123456789abcdef"
OTHER = "sk-step-fedcba9876543210"


class Clock:
    """Unix seconds, moved by hand."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def keyed(clock: Clock, *keys: Key) -> Auth:
    return Auth(keys or (Key("phone", auth.hash_of(KEY)),), clock)


def status_of(call, *arguments) -> int:
    with pytest.raises(ApiError) as refused:
        call(*arguments)
    return refused.value.status


# Keys


def test_a_key_opens_and_nothing_else_does(clock):
    guarded = keyed(clock)
    assert guarded.caller(KEY).name == "phone"
    for wrong in (None, "", OTHER, KEY[:-1], KEY + "0", KEY.upper(), auth.hash_of(KEY), "\ud800"):
        assert status_of(guarded.caller, wrong) == 401


def test_without_keys_everybody_is_let_in(clock):
    assert Auth((), clock).caller(None) == ANONYMOUS
    assert Auth((), clock).caller("anything") == ANONYMOUS
    assert Auth((), clock).caller("ek_of another server") == ANONYMOUS


def test_every_hash_is_compared_whichever_fits(clock, monkeypatch):
    compared = []

    def compare(given: str, kept: str) -> bool:
        compared.append(kept)
        return given == kept

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    keys = tuple(Key(name, auth.hash_of(key)) for name, key in (("a", KEY), ("b", OTHER), ("c", "third key")))
    guarded = keyed(clock, *keys)
    for key in (KEY, "third key"):
        compared.clear()
        guarded.caller(key)
        assert compared == [kept.hash for kept in keys]  # as many comparisons, of digests, for every key


def test_a_key_is_only_for_its_scopes():
    caller = Caller("phone", frozenset({"realtime"}))
    caller.need("realtime")
    assert status_of(caller.need, "speech") == 403


def test_only_hashes_are_kept_and_only_the_owner_reads_them(tmp_path):
    path = tmp_path / "config" / "keys.json"
    key = auth.add_key(path, "phone", ["realtime"], sessions=2)
    assert key.startswith("sk-step-") and len(key) > 40
    assert key not in path.read_text() and stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = auth.read_keys(path)[0]
    assert (kept.name, kept.scopes, kept.sessions) == ("phone", ("realtime",), 2)
    assert Auth([kept]).caller(key).sessions == 2
    auth.add_key(path, "laptop")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    auth.remove_key(path, "phone")
    assert [key.name for key in auth.read_keys(path)] == ["laptop"]


@pytest.mark.parametrize(
    ("name", "scopes", "says"),
    [
        ("phone", SCOPES, "already"),
        ("two words", SCOPES, "no name"),
        ("", SCOPES, "no name"),
        ("x", ["speach"], "speech"),
    ],
)
def test_keys_that_cannot_be_made(tmp_path, name, scopes, says):
    path = tmp_path / "keys.json"
    auth.add_key(path, "phone")
    with pytest.raises(ConfigError, match=says):
        auth.add_key(path, name, scopes)
    assert len(auth.read_keys(path)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        "[1]",
        '[{"name": "x"}]',
        '[{"name": "x", "hash": "", "scopes": []}]',
        json.dumps([{"name": "x", "hash": "0" * 64, "scopes": ["everything"]}]),
    ],
)
def test_damaged_file_of_keys_opens_nothing(tmp_path, text):
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not a list of keys"):
        auth.read_keys(path)


def test_missing_key_is_named_with_its_neighbours(tmp_path):
    auth.add_key(tmp_path / "keys.json", "phone")
    with pytest.raises(ConfigError, match="did you mean phone"):
        auth.remove_key(tmp_path / "keys.json", "fone")


def test_keys_from_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = f"server.keys={tmp_path / 'keys.json'}"
    assert cli.main(["keys", "add", "phone", "--scope", "realtime", "--sessions", "2", "--set", file]) == 0
    key = capsys.readouterr().out.strip()
    assert Auth(auth.read_keys(tmp_path / "keys.json")).caller(key).scopes == {"realtime"}
    assert cli.main(["keys", "list", "--json", "--set", file]) == 0
    listed = capsys.readouterr().out
    assert json.loads(listed)[0]["name"] == "phone" and key not in listed
    assert cli.main(["keys", "remove", "phone", "--set", file]) == 0
    assert cli.main(["keys", "remove", "phone", "--set", file]) == 2
    assert cli.main(["keys", "add", "x", "--scope", "all", "--set", file]) == 2


# Client secrets


def test_secret_expires(clock):
    guarded = keyed(clock)
    secret, expires = guarded.make_secret(guarded.caller(KEY), 60, {"instructions": "x"})
    assert secret.startswith("ek_") and expires == 1_000_060
    caller = guarded.caller(secret)
    assert (caller.name, caller.ephemeral, caller.session) == ("phone", True, {"instructions": "x"})
    clock.now += 59.9
    assert guarded.caller(secret).ephemeral
    clock.now += 0.1
    assert status_of(guarded.caller, secret) == 401


def test_secret_is_for_talks_and_makes_no_other(clock):
    guarded = keyed(clock)
    caller = guarded.caller(guarded.make_secret(guarded.caller(KEY), 60, {})[0])
    caller.need("realtime")
    assert status_of(caller.need, "chat") == 403
    assert status_of(guarded.make_secret, caller, 60, {}) == 403


def test_secret_of_a_key_that_may_not_talk_may_not_either(clock):
    guarded = keyed(clock, Key("tts", auth.hash_of(KEY), ("speech",)))
    caller = guarded.caller(guarded.make_secret(guarded.caller(KEY), 60, {})[0])
    assert status_of(caller.need, "realtime") == 403


def test_expired_secret_is_refused_even_where_nobody_needs_a_key(clock):
    open_to_all = Auth((), clock)
    secret, _ = open_to_all.make_secret(ANONYMOUS, 10, {})
    assert open_to_all.caller(secret).ephemeral
    clock.now += 10
    assert status_of(open_to_all.caller, secret) == 401


def test_secrets_are_bounded_and_old_ones_forgotten(clock, monkeypatch):
    monkeypatch.setattr(auth, "MOST_SECRETS", 3)
    guarded = keyed(clock)
    for _ in range(3):
        guarded.make_secret(guarded.caller(KEY), 10, {})
    assert status_of(guarded.make_secret, guarded.caller(KEY), 10, {}) == 429
    clock.now += 4000
    guarded.make_secret(guarded.caller(KEY), 10, {})


# Where the key is


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"authorization": "Bearer abc"}, "abc"),
        ({"authorization": "bearer  abc "}, "abc"),
        ({"authorization": "Basic abc"}, None),
        ({"authorization": "Bearer "}, None),
        ({"api-key": "abc"}, "abc"),
        (
            {"sec-websocket-protocol": "realtime, openai-insecure-api-key.ek_1, x"},
            "ek_1",
        ),
        ({"sec-websocket-protocol": "realtime"}, None),
        ({}, None),
    ],
)
def test_where_the_key_is_sent(headers, key):
    assert auth.credential_of(headers) == key


def test_the_answered_subprotocol_never_holds_the_key():
    assert auth.answered_subprotocol(["openai-insecure-api-key.x", "realtime"]) == "realtime"
    assert auth.answered_subprotocol(["openai-insecure-api-key.x"]) is None


# Names and origins


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1", "[::1]"])
def test_loopback_needs_no_key(host):
    auth.check_bind(host, [])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_other_addresses_need_a_key(host):
    with pytest.raises(ConfigError, match="stepaudio keys add"):
        auth.check_bind(host, [])
    auth.check_bind(host, [Key("phone", "0" * 64)])


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8910", "LOCALHOST:1", "127.0.0.1:8910", "[::1]:8910", "my.pc:80"],
)
def test_hosts_that_are_this_machine(host):
    auth.check_host(host, ["My.PC"])


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8910",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil",
        "[::1].evil.example",
        "evil.example:8910@localhost",
        "[",
        "0x7f.1",
        "１２７.0.0.1",
    ],
)
def test_hosts_that_are_not(host):
    assert status_of(auth.check_host, host, ["my.pc"]) == 403


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "localhost:8910"),
        ("http://localhost:8910", "localhost:8910"),
        ("https://voice.example.org", "voice.example.org"),
        ("HTTP://LocalHost:8910", "localhost:8910"),
        ("https://app.example.com", "localhost:8910"),
    ],
)
def test_origins_that_may_come(origin, host):
    auth.check_origin(origin, host, ["https://app.example.com/"])


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "http://localhost:3000",
        "http://localhost",
        "https://app.example.com.evil",
        "http://localhost:8910.evil.example",
        "http://localhost:8910@evil.example",
        "file://",
        "chrome-extension://x",
        "http://[",
        "http://app.example.com",
    ],
)
def test_origins_that_may_not(origin):
    assert status_of(auth.check_origin, origin, "localhost:8910", ["https://app.example.com"]) == 403
