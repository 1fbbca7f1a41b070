"""Published checkpoints: from a local folder, from a hub on 127.0.0.1, and what is none."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepaudio.core.errors import ConfigError, ModelMissing, StepAudioError
from stepaudio.models import ModelStore, load_specs
from stepaudio.published import what_else
from tests.test_models import Site, point_hub_at

TOY = """
[toy]
purpose = "nothing"
origin = "nobody"
licence = "CC0-1.0"
profiles = []
hub = { repository = "some/toy" }
size = 40
memory = 50
index = "index.json"
expected = ["index.json", "inner/flow.pt"]
"""
FILES = {
    "index.json": json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}).encode(),
    "inner/flow.pt": b"flow",
    "m-1.safetensors": b"one" * 500,
    "m-2.safetensors": b"two" * 500,
}


def fill(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    for name, content in (FILES if files is None else files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def specs(tmp_path: Path):
    (tmp_path / "toys.toml").write_text(TOY)
    return load_specs(tmp_path / "toys.toml")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        point_hub_at(site.url, monkeypatch)
        for name, content in FILES.items():
            site.put_hub(name, content)
            small = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            large = hashlib.sha256(content).hexdigest()
            site.linked[f"/some/toy/resolve/main/{name}"] = large if "m-" in name else small
        yield site
        site.shutdown()
        thread.join()


def test_the_public_checkpoints_are_listed():
    specs = load_specs()
    for model, gigabytes, files in (("tokenizer", 1.4, 5), ("tts-3b", 8.1, 12), ("chat", 265, 4)):
        spec = specs[f"step-audio-{model}"]
        assert spec.layout is not None and len(spec.layout.expected) == files
        assert spec.size == spec.layout.size == pytest.approx(gigabytes * 1e9, rel=0.01)
        assert (spec.repository or "").startswith("stepfun-ai/Step-Audio-") and spec.licence == "Apache-2.0"
        assert spec.layout.memory > 1e9 and not spec.files and spec.profiles == ("step",)


@pytest.mark.parametrize("name", ["run.py", "../flow.pt", "lib.so"])
def test_lists_name_no_code_and_nothing_outside(tmp_path: Path, name: str):
    (tmp_path / "toys.toml").write_text(TOY.replace("inner/flow.pt", name))
    with pytest.raises(ConfigError, match="toy"):
        load_specs(tmp_path / "toys.toml")


@pytest.mark.parametrize("inside", ["toy", "."])
def test_a_local_folder_is_linked(tmp_path: Path, specs, inside: str):
    folder = fill(tmp_path / "mine" / inside)
    store = ModelStore(tmp_path / "store", (tmp_path / "mine",), offline=True, specs=specs)
    with pytest.raises(ModelMissing, match="stepaudio models pull toy"):
        store.path("toy")
    store.pull(["toy"])
    assert store.path("toy").resolve() == folder.resolve() and store.verify("toy") == []
    assert store.status("toy").on_disk == sum(map(len, FILES.values()))
    assert store.remove("toy") == 0 and store.status("toy").state == "missing"
    assert (folder / "index.json").is_file()


@pytest.mark.parametrize(
    "change, says",
    [
        ({"inner/flow.pt": b""}, "flow.pt is empty"),
        ({"m-2.safetensors": b"version https://git-lfs.github.com/spec/v1\n"}, "git lfs pull"),
        ({"inner/flow.pt": None}, "flow.pt is missing"),
        ({"m-1.safetensors": None}, "m-1.safetensors is missing"),
        ({"token2wav/flow.yaml": b"x"}, "Step-Audio 2"),
        ({"CosyVoice-300M-25Hz/cosyvoice.yaml": b"flow: !new:CausalMaskedDiffWithXvec"}, "EditX"),
    ],
)
def test_folders_that_are_not_it_say_why(tmp_path: Path, specs, change, says: str):
    folder = fill(tmp_path / "mine" / "toy")
    for name, content in change.items():
        (folder / name).unlink() if content is None else fill(folder, {name: content})
    store = ModelStore(tmp_path / "store", (tmp_path / "mine",), offline=True, specs=specs)
    with pytest.raises(ModelMissing, match=says) as caught:
        store.pull(["toy"])
    assert "hub some/toy: not asked (offline)" in str(caught.value)
    assert store.status("toy").state == "missing"


def test_a_pointer_in_the_store_is_damage(tmp_path: Path, specs):
    store = ModelStore(tmp_path / "store", offline=True, specs=specs)
    fill(tmp_path / "store" / "toy")
    assert store.status("toy").state == "present"
    fill(tmp_path / "store" / "toy", {"m-1.safetensors": b"version https://git-lfs.github.com/spec/v1\n"})
    assert store.status("toy").state == "damaged"
    (tmp_path / "store" / "toy" / "m-1.safetensors").unlink()
    assert store.status("toy").state == "incomplete"
    assert store.remove("toy") > 0 and not (tmp_path / "store" / "toy").exists()


def test_the_hub_gives_what_the_index_names(tmp_path: Path, specs, hub: Site):
    store = ModelStore(tmp_path / "store", specs=specs)
    seen = []
    store.pull(["toy"], seen.append)
    for name, content in FILES.items():
        assert (store.path("toy") / name).read_bytes() == content
    assert {step.file for step in seen if step.state == "done"} == set(FILES)
    assert not list(store.root.rglob("*.part"))
    hub.asked.clear()
    store.pull(["toy"])
    assert not hub.asked


def test_a_cut_goes_on_and_other_bytes_are_refused(tmp_path: Path, specs, hub: Site):
    hub.cut = [len(FILES["index.json"]), 4, 700]
    store = ModelStore(tmp_path / "store", specs=specs)
    store.pull(["toy"])
    assert "GET /some/toy/resolve/main/m-1.safetensors bytes=700-" in hub.asked
    store.remove("toy")
    hub.linked["/some/toy/resolve/main/inner/flow.pt"] = "0" * 40
    with pytest.raises(ModelMissing, match="holds other bytes"):
        store.pull(["toy"])
    assert store.status("toy").state == "incomplete"


def test_too_large_for_the_disk(tmp_path: Path):
    (tmp_path / "toys.toml").write_text(TOY.replace("size = 40", f"size = {1 << 60}"))
    store = ModelStore(tmp_path / "store", specs=load_specs(tmp_path / "toys.toml"))
    with pytest.raises(StepAudioError, match="disk is too full for toy"):
        store.pull(["toy"])


def test_what_else_a_folder_is(tmp_path: Path):
    assert what_else(tmp_path) is None
    assert "EditX" in (what_else(tmp_path / "Step-Audio-EditX") or "")
