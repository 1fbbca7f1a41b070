"""Messages that say what to do."""

from stepaudio.core.errors import BackendError, ConfigError, StepAudioError, unknown


def test_unknown_offers_the_nearest_names():
    error = unknown("voice", "af_hart", ["af_heart", "am_michael", "zf_xiaobei"])
    assert isinstance(error, ConfigError) and isinstance(error, StepAudioError)
    assert str(error).startswith("no voice named 'af_hart'; did you mean af_heart")
    assert "am_michael" in str(unknown("voice", "michael", ["af_heart", "am_michael"]))


def test_unknown_lists_what_there_is_when_nothing_is_near():
    assert str(unknown("language", "%%", ["en", "zh"])) == "no language named '%%'; there are: en, zh"
    assert str(unknown("dialect", "klingon", ["ja", "ko"])) == "no dialect named 'klingon'; there are: ja, ko"
    many = [f"v{i:02}" for i in range(54)]
    assert str(unknown("voice", "bob", many)).endswith(
        "there are: " + ", ".join(many[:12]) + ", … and 42 more"
    )
    assert "more" not in str(unknown("voice", "bob", many[:12]))


def test_backend_errors_say_whether_to_try_again():
    assert BackendError("x", retryable=True).retryable and not BackendError("x").retryable
