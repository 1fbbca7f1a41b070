"""Step-1 under a ceiling of memory: what stays, what is read when, and that the words are the same."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="Step-1 needs torch: pip install stepaudio[step]")
pytest.importorskip("transformers", reason="Step-1 needs transformers: pip install stepaudio[step]")

import torch
from safetensors.torch import load_file, save_file

from stepaudio import config
from stepaudio.core.conversation import Message
from stepaudio.core.errors import BackendError, ConfigError
from stepaudio.engine import Engine
from stepaudio.llm.base import Sampling, TextDelta
from stepaudio.llm.step1 import folder as folders
from stepaudio.llm.step1 import network, tiny, window
from stepaudio.llm.step1.in_process import Step1Chat
from stepaudio.llm.step1.window import PAGE, Shard, Span, Stored, Window, plan, room, spans
from tests import step1_folder

LAYERS, CONTEXT = 6, 32
SIZES = {"num_hidden_layers": LAYERS, "vocab_size": 320, "hidden_size": 96, "eos_token_id": None}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six layers, each spread over two files."""
    return step1_folder.write(tmp_path_factory.mktemp("step1"), **SIZES)


@pytest.fixture(scope="module")
def words(checkpoint: Path) -> list[int]:
    return greedy(network.load(checkpoint))


def greedy(model: Any, prompt: tuple[int, ...] = (9, 8, 7, 300, 9)) -> list[int]:
    ids = torch.tensor([prompt])
    mask = torch.ones_like(ids)
    found = model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False, eos_token_id=None)
    return found[0].tolist()


def room_for(path: Path, layers: int, context: int = CONTEXT, talks: int = 1) -> int:
    """Bytes that so many layers need, with all that comes besides."""
    whole = window.load(path, context=context, talks=talks)
    whole.close()
    return whole.plan.weights + whole.plan.work - (LAYERS - layers) * layer_bytes(path)


def layer_bytes(path: Path) -> int:
    tensors = window.stored(folders.look(path))
    return max(
        room(spans([t for name, t in tensors.items() if name.startswith(f"model.layers.{i}.")]))
        for i in range(LAYERS)
    )


def window_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "step1-window"]


# What stays


@pytest.mark.parametrize(
    ("most", "sliding"),
    [
        (None, ()),
        (1000, ()),
        (6 * 100 + 30, ()),
        (6 * 100 + 29, (1, 3, 5)),  # 3 stay, 2 buffers
        (4 * 100 + 30, (1, 2, 4, 5)),
        (2 * 100 + 30, (0, 1, 2, 3, 4, 5)),
    ],
)
def test_as_many_layers_stay_as_fit_spread_evenly(most: int | None, sliding: tuple[int, ...]):
    found = plan(6, 100, 20, 10, most)
    assert found.sliding == sliding
    assert found.read == 100 * len(sliding)
    assert most is None or found.weights + found.work <= most


def test_a_ceiling_that_is_too_low_says_what_would_do():
    with pytest.raises(ConfigError, match=r"needs 0\.23 GB .* may take 0\.22 GB: raise llm\.memory_gb"):
        plan(6, 100_000_000, 20_000_000, 10_000_000, 220_000_000)


def test_work_grows_with_the_talk():
    from stepaudio.llm.step1.configuration import Step1Config

    config = Step1Config()
    short, long = (window.working_bytes(config, 2, context) for context in (1000, 2000))
    keys_and_values = 2 * 48 * 1024 * 1000 * 2
    assert long - short > keys_and_values
    more = window.working_bytes(config, 2, 2000, talks=2)
    assert more - long == 2 * keys_and_values
    assert window.working_bytes(config, 2, 2000, at_once=100) < long


# Where tensors are


def at(name: str, begin: int, size: int, file: str = "a") -> Stored:
    return Stored(name, Path(file), begin, begin + size, "BF16", (size // 2,))


def test_neighbours_are_read_at_once_from_a_page_on():
    far = 10 + 100 * PAGE
    found = spans([at("far", far, 8), at("other", 0, 8, "b"), at("two", 5010, 8), at("one", 5000, 10)])
    assert [(s.file.name, s.begin, s.end, s.at, [t.name for t in s.tensors]) for s in found] == [
        ("a", PAGE, 5018, 0, ["one", "two"]),
        ("a", 100 * PAGE, far + 8, PAGE, ["far"]),
        ("b", 0, 8, 2 * PAGE, ["other"]),
    ]
    assert room(found) == 3 * PAGE


def test_other_types_are_refused(checkpoint: Path, tmp_path: Path):
    wide = copy(checkpoint, tmp_path)
    file = wide / "model-00001.safetensors"
    save_file({name: t.float() for name, t in load_file(file).items()}, file)
    with pytest.raises(ConfigError, match=r"stores tensors as BF16, F32; .* set no ceiling"):
        window.load(wide)


# The same words


@pytest.mark.parametrize("layers", [LAYERS, 5, 4, 3, 2])
def test_words_are_those_of_plain_loading(checkpoint: Path, words: list[int], layers: int):
    most = room_for(checkpoint, layers)
    with closing(window.load(checkpoint, most, CONTEXT)) as model:
        assert len(model.plan.sliding) == (0 if layers == LAYERS else LAYERS + 2 - layers)
        assert model.plan.weights + model.plan.work <= most
        assert greedy(model) == words
        assert greedy(model) == words
        assert model.device.type == "cpu"
        assert model.dtype == torch.bfloat16


def test_tied_embedding(tmp_path: Path):
    path = step1_folder.write(tmp_path, tied=True, shards=1, **SIZES)
    words = greedy(network.load(path))
    with closing(window.load(path, room_for(path, 3), CONTEXT)) as model:
        assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()  # pyright: ignore
        assert greedy(model) == words


def test_without_direct_reads(checkpoint: Path, words: list[int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(window.os, "O_DIRECT", 0, raising=False)
    assert not Shard(checkpoint / "model-00001.safetensors").direct
    with closing(window.load(checkpoint, room_for(checkpoint, 3), CONTEXT)) as model:
        assert greedy(model) == words


def test_batches_with_padding(checkpoint: Path):
    ids = torch.tensor([[5, 6, 7, 8], [0, 0, 9, 8]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    with closing(window.load(checkpoint, room_for(checkpoint, 3), CONTEXT)) as model, torch.inference_mode():
        wanted, found = (
            each(input_ids=ids, attention_mask=mask).logits for each in (network.load(checkpoint), model)
        )
        assert torch.equal(found, wanted)


def test_ids_beyond_the_vocabulary(checkpoint: Path):
    with closing(window.load(checkpoint)) as model, pytest.raises(IndexError, match="from 0 to 319"):
        model(torch.tensor([[320]]))


def test_two_threads_take_turns(checkpoint: Path, words: list[int]):
    with closing(window.load(checkpoint, room_for(checkpoint, 3), CONTEXT)) as model:
        found: list[list[int]] = []
        threads = [threading.Thread(target=lambda: found.append(greedy(model))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [words, words]


# The window


class Disk:
    """Files that are read when the test says so; a layer's number is all that it holds."""

    def __init__(self) -> None:
        self.log: list[int] = []
        self.errors: dict[int, Exception] = {}
        self.going = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    def read(self, begin: int, end: int, into: memoryview, stopped: Any) -> None:
        self.log.append(begin // PAGE)
        into[:2] = b"\xff\xff"  # a half that must not be seen
        self.begun.release()
        while not self.going.acquire(timeout=0.01):
            if stopped():
                raise window._Stopped
        if begin // PAGE in self.errors:
            raise self.errors[begin // PAGE]
        into[:2] = (begin // PAGE).to_bytes(2, "little")

    def go(self, reads: int) -> None:
        for _ in range(reads):
            self.going.release()

    def wait(self, reads: int) -> None:
        for _ in range(reads):
            assert self.begun.acquire(timeout=10)


def open_window(disk: Disk, layers: int = 4) -> Window:
    file = Path("disk")
    places = [
        Span(file, i * PAGE, i * PAGE + 2, 0, (Stored("x", file, i * PAGE, i * PAGE + 2, "BF16", (1,)),))
        for i in range(layers)
    ]
    return Window([[place] for place in places], {file: disk})  # pyright: ignore[reportArgumentType]


def number(tensors: dict[str, Any]) -> int:
    return int(tensors["x"].view(torch.int16))


def test_one_layer_is_read_while_another_works():
    disk = Disk()
    with closing(open_window(disk)) as layers:
        disk.go(1)
        disk.wait(2)
        with layers.layer(0) as first:
            assert disk.log == [0, 1]  # the next is being read, and no more than that: there are two buffers
            disk.go(1)
            assert number(first) == 0
        with layers.layer(1) as second:
            disk.wait(1)
            assert number(second) == 1
        assert disk.log == [0, 1, 2]


def test_the_circle_goes_on_with_the_next_token():
    disk = Disk()
    disk.go(100)
    with closing(open_window(disk, 3)) as layers:
        for _ in range(3):
            for place in range(3):
                with layers.layer(place) as tensors:
                    assert number(tensors) == place
    assert disk.log[:9] == [0, 1, 2] * 3


@pytest.mark.parametrize("broken_off_after", [1, 2, 3])
def test_a_pass_that_is_broken_off_does_not_mix_layers_up(broken_off_after: int):
    disk = Disk()
    disk.go(100)
    with closing(open_window(disk)) as layers:
        for end in (broken_off_after, 4, broken_off_after, 4):
            for place in range(end):
                with layers.layer(place) as tensors:
                    assert number(tensors) == place


def test_what_was_being_read_for_a_broken_pass_is_dropped():
    disk = Disk()
    with closing(open_window(disk)) as layers:
        disk.go(1)
        with layers.layer(0):
            disk.wait(2)  # 1 is being read
        disk.go(2)
        with layers.layer(0) as again:
            assert number(again) == 0
    assert disk.log[:3] == [0, 1, 0]


def test_an_error_is_told_to_who_waits_and_the_next_call_tries_again():
    disk = Disk()
    disk.errors[1] = BackendError("file cannot be read")
    disk.go(100)
    with closing(open_window(disk)) as layers:
        with layers.layer(0) as tensors:
            assert number(tensors) == 0
        with pytest.raises(BackendError, match="file cannot be read"), layers.layer(1):
            pass
        disk.errors.clear()
        for place in range(4):
            with layers.layer(place) as tensors:
                assert number(tensors) == place


def test_close_stops_a_read_that_is_under_way_and_a_caller_that_waits():
    disk = Disk()
    layers = open_window(disk)
    disk.wait(1)
    told: list[Exception] = []

    def wait() -> None:
        try:
            with layers.layer(0):
                pass
        except BackendError as error:
            told.append(error)

    caller = threading.Thread(target=wait)
    caller.start()
    layers.close()
    caller.join(10)
    assert not caller.is_alive()
    assert not window_threads()
    assert "was closed" in str(told[0])
    assert disk.log == [0]


# Files that fail


def test_a_file_that_became_shorter_names_itself(checkpoint: Path, tmp_path: Path):
    path = copy(checkpoint, tmp_path)
    with closing(window.load(path, room_for(path, 2), CONTEXT)) as model:
        file = path / "model-00002.safetensors"
        file.write_bytes(file.read_bytes()[:PAGE])
        with pytest.raises(BackendError, match=r"model-00002\.safetensors has become shorter"):
            greedy(model, (1, 2, 3))
            greedy(model, (1, 2, 3))  # at the latest: some was read ahead


def test_an_error_of_the_disk_names_the_file(
    checkpoint: Path, words: list[int], monkeypatch: pytest.MonkeyPatch
):
    class Bad:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def readinto(self, into: memoryview) -> int:
            if bad:
                raise OSError(5, "Input/output error")
            return self.file.readinto(into)

    open_plain = window._open
    monkeypatch.setattr(window, "_open", lambda path: (Bad(open_plain(path)[0]), True))
    bad: list[bool] = []
    with closing(window.load(checkpoint, room_for(checkpoint, 2), CONTEXT)) as model:
        assert greedy(model) == words
        bad.append(True)
        with pytest.raises(BackendError, match=r"model-0000\d\.safetensors cannot be read: Input/output"):
            greedy(model)
        bad.clear()
        assert greedy(model) == words


def test_a_file_that_is_gone(tmp_path: Path):
    with pytest.raises(BackendError, match="gone cannot be read: No such file"):
        Shard(tmp_path / "gone")


# The end


def test_a_closed_model_says_so_and_leaves_no_thread(checkpoint: Path):
    model = window.load(checkpoint, room_for(checkpoint, 2), CONTEXT)
    assert window_threads()
    model.close()
    assert not window_threads()
    with pytest.raises(BackendError, match="load"):
        greedy(model)
    model.close()


def test_a_forgotten_model_leaves_no_thread(checkpoint: Path):
    model = window.load(checkpoint, room_for(checkpoint, 2), CONTEXT)
    assert window_threads()
    del model
    gc.collect()
    assert not window_threads()


def test_memory_is_the_plan(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    taken: list[int] = []
    make = window.Buffer.__init__

    def count(self: window.Buffer, size: int) -> None:
        taken.append(size)
        make(self, size)

    monkeypatch.setattr(window.Buffer, "__init__", count)
    most = room_for(checkpoint, 3)
    taken.clear()
    with closing(window.load(checkpoint, most, CONTEXT)) as model:
        greedy(model)
        assert sum(taken) <= model.plan.weights <= most - model.plan.work
        held = sum(parameter.nbytes for parameter in model.parameters())
        assert held <= sum(taken) - 2 * max(taken[1:])  # the rest is the window


# Where it is used


def test_a_chat_in_process_keeps_to_its_memory(tmp_path: Path):
    tiny.write(tmp_path, "chat", tiny.Sizes(layers=LAYERS))
    told = []
    for layers in (None, LAYERS, 4):
        memory = None if layers is None else room_for(tmp_path, layers, context=512, talks=2)
        llm = Step1Chat.load(tmp_path, context_tokens=512, memory=memory)
        with closing(llm):
            told.append(asyncio.run(answer(llm)))
            sliding = {None: None, LAYERS: 0, 4: 4}[layers]
            assert sliding is None or len(llm._network.plan.sliding) == sliding
    assert told[0] and told == [told[0]] * 3
    assert not window_threads()


async def answer(llm: Step1Chat) -> str:
    events = llm.generate(
        [Message("user", "the people of the water")], Sampling(max_tokens=12, temperature=0)
    )
    return "".join([event.text async for event in events if isinstance(event, TextDelta)])


def test_the_setting_reaches_the_model(tmp_path: Path):
    tiny.write(tmp_path, "chat")
    flags = {"models.root": tmp_path, "llm.model": str(tmp_path), "llm.memory_gb": "0.001"}
    with Engine(config.load(None, {}, flags).config) as engine, pytest.raises(ConfigError, match="raise llm"):
        _ = engine.llm


def test_a_ceiling_is_for_the_cpu(tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"llm\.memory_gb is kept on the CPU alone, and llm\.device is meta"
    ):
        Step1Chat.load(tmp_path, device="meta", memory=1)


def copy(source: Path, target: Path) -> Path:
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    assert json.loads((target / folders.CONFIG).read_text())["num_hidden_layers"] == LAYERS
    return target
