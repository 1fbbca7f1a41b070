"""Step-1: the network beside a plain loop, caches, padding; folders that are not whole; words and talks.

The reference's own numbers: tests/parity_step1.py.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="Step-1 needs torch: pip install stepaudio[step]")
pytest.importorskip("transformers", reason="Step-1 needs transformers: pip install stepaudio[step]")
pytest.importorskip("sentencepiece", reason="Step-1 needs sentencepiece: pip install stepaudio[step]")

import torch
from safetensors.torch import load_file, save_file

from stepaudio.core.codes import AudioCodes
from stepaudio.core.errors import ConfigError, ModelMissing
from stepaudio.llm.step1 import chat, folder, network
from stepaudio.llm.step1.tokenizer import Step1Tokenizer
from tests import step1_folder

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_attention_heads": 6,
    "num_attention_groups": 2,
    "num_hidden_layers": 3,
}
PROMPTS = ([1, 7, 9, 30, 2, 11, 5], [1, 8, 3], [1, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return step1_folder.write(tmp_path_factory.mktemp("step1"), seed=3, **SIZES)


@pytest.fixture(scope="module")
def model(path: Path) -> Any:
    found: Any = network.load(path, dtype=torch.float32)
    found.generation_config.eos_token_id = None
    return found


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("words")
    step1_folder.write_tokenizer(place)
    (place / "config.json").write_text(json.dumps(step1_folder.CONFIG))
    return place


def plain(tensors: dict[str, Any], ids: list[int]) -> Any:
    """Logits (length, vocabulary) by loops over heads, queries and keys, in float64."""
    t = {name: value.double() for name, value in tensors.items()}
    heads, groups = SIZES["num_attention_heads"], SIZES["num_attention_groups"]
    size = SIZES["hidden_size"] // heads
    slope = [2 ** (-8 * k / 4) for k in (1, 2, 3, 4)] + [2 ** (-4 * k / 4) for k in (1, 3)]

    def norm(x: Any, name: str) -> Any:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * t[name + ".weight"]

    x = t["model.embed_tokens.weight"][ids]
    for layer in range(SIZES["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        y = norm(x, at + "input_layernorm")
        q, k, v = (y @ t[f"{at}self_attn.{name}_proj.weight"].T for name in "qkv")
        mixed = torch.zeros_like(q)
        for head in range(heads):
            mine = slice(head * size, (head + 1) * size)
            shared = slice(head // (heads // groups) * size, (head // (heads // groups) + 1) * size)
            for i in range(len(ids)):
                scores = torch.stack(
                    [
                        q[i, mine] @ k[j, shared] / math.sqrt(size) - slope[head] * math.sqrt(i - j)
                        for j in range(i + 1)
                    ]
                )
                mixed[i, mine] = scores.softmax(0) @ v[: i + 1, shared]
        x = x + mixed @ t[at + "self_attn.o_proj.weight"].T
        y = norm(x, at + "post_attention_layernorm")
        gate = y @ t[at + "mlp.gate_proj.weight"].T
        inner = gate * torch.sigmoid(gate) * (y @ t[at + "mlp.up_proj.weight"].T)
        x = x + inner @ t[at + "mlp.down_proj.weight"].T
    return norm(x, "model.norm") @ t["lm_head.weight"].T


def stored(path: Path) -> dict[str, Any]:
    return {name: t for file in sorted(path.glob("*.safetensors")) for name, t in load_file(file).items()}


def logits(model: Any, ids: list[int], **more: Any) -> Any:
    with torch.inference_mode():
        return model(torch.tensor([ids]), **more).logits[0]


def test_slopes_of_heads_that_are_no_power_of_two():
    assert network.slopes(4).tolist() == [2**-2, 2**-4, 2**-6, 2**-8]
    assert network.slopes(6).tolist() == [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]
    assert len(network.slopes(48)) == 48


@pytest.mark.parametrize("ids", PROMPTS)
def test_the_network_computes_what_plain_loops_do(model: Any, path: Path, ids: list[int]):
    torch.testing.assert_close(logits(model, ids).double(), plain(stored(path), ids), atol=1e-4, rtol=0)


def test_pieces_with_a_cache_blocks_and_the_whole_are_one(model: Any, monkeypatch: pytest.MonkeyPatch):
    ids = PROMPTS[2]
    whole = logits(model, ids)
    cache, parts = None, []
    for piece in (ids[:5], ids[5:6], ids[6:]):
        with torch.inference_mode():
            answer = model(torch.tensor([piece]), past_key_values=cache, use_cache=True)
        cache = answer.past_key_values
        parts.append(answer.logits[0])
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)
    monkeypatch.setattr(network, "BLOCK", 6 * 12 * 5)  # five queries at once
    torch.testing.assert_close(logits(model, ids), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["left", "right", "between"])
def test_padding_changes_nothing_wherever_it_stands(model: Any, side: str):
    batch, mask = torch.zeros(3, 14, dtype=torch.long), torch.zeros(3, 14, dtype=torch.long)
    rows = []
    for row, ids in enumerate(PROMPTS):
        if side == "left":
            place = list(range(14 - len(ids), 14))
        elif side == "right":
            place = list(range(len(ids)))
        else:
            place = [at + 2 * (at > 1) for at in range(len(ids))]
        batch[row, place], mask[row, place] = torch.tensor(ids), 1
        rows.append(place)
    with torch.inference_mode():
        answers = model(batch, attention_mask=mask).logits
    for answer, ids, place in zip(answers, PROMPTS, rows, strict=True):
        torch.testing.assert_close(answer[place], logits(model, ids), atol=1e-5, rtol=0)
    assert torch.isfinite(answers).all()


@pytest.mark.parametrize("cache", [None, "static"])
def test_a_batch_writes_what_each_prompt_alone_does(model: Any, cache: str | None):
    alone = []
    for ids in PROMPTS:
        told = list(ids)
        for _ in range(8):
            told.append(int(logits(model, told)[-1].argmax()))
        alone.append(told[len(ids) :])
    longest = max(map(len, PROMPTS))
    batch = torch.tensor([[0] * (longest - len(ids)) + ids for ids in PROMPTS])
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in PROMPTS])
    found = model.generate(
        batch, attention_mask=mask, max_new_tokens=8, do_sample=False, cache_implementation=cache
    )
    assert found[:, longest:].tolist() == alone


def test_a_loss_can_be_had_and_falls(path: Path):
    trained: Any = network.load(path, dtype=torch.float32).requires_grad_(True).train()
    ids = torch.tensor([PROMPTS[2]])
    optimizer = torch.optim.SGD(trained.parameters(), 0.05)
    losses = []
    for _ in range(3):
        loss = trained(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[1] < losses[0]


def test_hugging_face_loads_the_folder_without_its_code(path: Path, model: Any):
    from transformers import AutoConfig, AutoModelForCausalLM

    network.register()
    config = AutoConfig.from_pretrained(path)
    assert (config.num_key_value_heads, config.max_position_embeddings) == (2, 32_768)
    found = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    torch.testing.assert_close(logits(found, PROMPTS[0]), logits(model, PROMPTS[0]))


def test_an_embedding_that_is_the_last_layer_too(tmp_path: Path):
    path = step1_folder.write(tmp_path, tied=True, shards=1, **SIZES)
    assert folder.look(path).tied
    found: Any = network.load(path, dtype=torch.float32)
    assert found.lm_head.weight is found.model.embed_tokens.weight
    tensors = stored(path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    torch.testing.assert_close(
        logits(found, PROMPTS[1]).double(), plain(tensors, PROMPTS[1]), atol=1e-4, rtol=0
    )


# Folders that are not whole


def change(path: Path, **changes: Any) -> None:
    """Write weights anew as one file, with tensors put in another's place; None takes one out."""
    tensors = stored(path)
    for file in (*path.glob("*.safetensors"), path / folder.INDEX):
        file.unlink()
    for name, tensor in changes.items():
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, path / folder.SINGLE)


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        ("model.layers.1.mlp.up_proj.weight", None, "model.layers.1.mlp.up_proj.weight is missing"),
        ("model.layers.9.extra", torch.zeros(2), "model.layers.9.extra has no place"),
        ("model.norm.weight", torch.zeros(23), r"model.norm.weight is \(23,\) and should be \(24,\)"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path: Path, name: str, tensor: Any, says: str):
    path = step1_folder.write(tmp_path, **SIZES)
    change(path, **{name: tensor})
    for read in (folder.look, network.load):
        with pytest.raises(ConfigError, match=says):
            read(path)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"


@pytest.mark.parametrize(
    ("file", "content", "error", "says"),
    [
        ("config.json", None, ModelMissing, "config.json is missing"),
        ("config.json", b"{", ConfigError, "config.json is damaged"),
        ("config.json", b"[]", ConfigError, "config.json is damaged"),
        ("model-00002.safetensors", None, ModelMissing, "model-00002.safetensors is missing"),
        ("model-00002.safetensors", LFS, ModelMissing, "Git LFS pointer.*git lfs pull"),
        ("model-00002.safetensors", b"\x05", ConfigError, "damaged or cut short"),
        ("model-00002.safetensors", b"\xff" * 16, ConfigError, "damaged or cut short"),
        ("model.safetensors.index.json", None, ModelMissing, "index.json is missing"),
        ("model.safetensors.index.json", b"{}", ConfigError, "does not say which file"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "../b"}}', ConfigError, "outside its folder"),
    ],
)
def test_a_folder_that_is_not_whole_says_what_to_do(
    tmp_path: Path, file: str, content: bytes | None, error: type[Exception], says: str
):
    path = step1_folder.write(tmp_path, **SIZES)
    (path / file).unlink()
    if content is not None:
        (path / file).write_bytes(content)
    with pytest.raises(error, match=says):
        folder.look(path)


def test_a_shard_that_was_cut_short_is_seen_before_it_is_read(tmp_path: Path):
    path = step1_folder.write(tmp_path, **SIZES)
    file = path / "model-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ConfigError, match="cut short"):
        folder.look(path)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "step_audio_2", "architectures": ["StepAudio2ForCausalLM"]}, "Step-Audio 2 or R1"),
        ({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}, "another model.*Qwen2ForCausalLM"),
        ({}, "no model type"),
        ({"model_type": "step1"}, "vocab_size, hidden_size"),
        ({"_name_or_path": "stepfun-ai/Step-Audio-EditX", **step1_folder.CONFIG}, "is Step-Audio-EditX"),
        ({**step1_folder.CONFIG, "num_attention_heads": 5}, "do not divide"),
    ],
)
def test_another_model_is_called_by_its_name(tmp_path: Path, config: dict[str, Any], says: str):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=says):
        folder.look(tmp_path)


def test_editx_is_known_by_the_decoder_beside_it(tmp_path: Path):
    path = step1_folder.write(tmp_path, **SIZES)
    (path / "CosyVoice-300M-25Hz").mkdir()
    (path / "CosyVoice-300M-25Hz" / "cosyvoice.yaml").write_text(
        "flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec\n"
    )
    with pytest.raises(ConfigError, match="is Step-Audio-EditX"):
        folder.look(path)


def test_a_device_that_is_not_there_is_said(path: Path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="cannot be put on cuda"):
        network.load(path, device="cuda")


# Words and talks

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": AudioCodes(np.array([3, 1]), np.array([0, 9, 4095]))},
    {"role": "assistant", "content": "I am fine"},
    {"role": "user", "content": [{"type": "text", "text": "你好"}]},
]
TALK_TEXT = (
    "<|BOT|>system\nBe brief.<|EOT|>"
    "<|BOT|>human\n<audio_3><audio_1><audio_1024><audio_1033><audio_5119><|EOT|>"
    "<|BOT|>assistant\nI am fine<|EOT|><|BOT|>human\n你好<|EOT|><|BOT|>assistant\n"
)


def test_a_talk_as_text():
    assert chat.render(TALK) == TALK_TEXT
    assert chat.render([{"role": "assistant", "content": None}]) == "<|BOT|>assistant\n"
    with pytest.raises(ConfigError, match="tokenize the audio first"):
        chat.render([{"role": "user", "content": [{"type": "audio", "audio": "a.wav"}]}])


def test_a_talk_as_ids_is_what_hugging_face_makes_of_it(words: Path):
    from transformers import AutoTokenizer

    network.register()
    ours, theirs = Step1Tokenizer(words), AutoTokenizer.from_pretrained(words)
    ids = ours.prompt(TALK)
    assert ids[:2] == [1, 4] and ids.count(3) == 4
    assert [i for i in ids if i >= 65_536] == [65_539, 65_537, 66_560, 66_569, 70_655]
    assert ids == theirs.encode(TALK_TEXT)
    plain_talk = [{**m, "content": "x" if i == 1 else m["content"]} for i, m in enumerate(TALK[:3])]
    assert theirs.apply_chat_template(plain_talk, add_generation_prompt=True, tokenize=False) == chat.render(
        plain_talk
    )
    only_user = theirs.apply_chat_template(plain_talk[1:2], tokenize=False)
    assert only_user == "<|BOT|>system\nYou are a helpful assistant.<|EOT|><|BOT|>human\nx<|EOT|>"


def test_text_comes_back_and_nobody_ends_a_turn_by_writing_its_name(words: Path):
    tokenizer = Step1Tokenizer(words)
    for text in ("Hello, 你好 zażółć 🙂", "a <|EOT|> b<|BOT|><s>", "x<audio_5119><audio_9999>", "\n\n  y"):
        assert tokenizer.decode(tokenizer.inside(text)) == text
        assert not {1, 3, 4} & {*tokenizer.inside(text), *tokenizer.encode(text)}
    assert tokenizer.encode("Hello") != tokenizer.inside("Hello")  # a word start
    assert tokenizer.decode([1, 4, *tokenizer.inside("Hello"), 3]) == "Hello"


def test_a_tokenizer_of_another_model_or_none(tmp_path: Path, words: Path):
    from sentencepiece import sentencepiece_model_pb2 as protocol

    with pytest.raises(ModelMissing, match=r"tokenizer\.model is missing"):
        Step1Tokenizer(tmp_path)
    file = tmp_path / "tokenizer.model"
    file.write_bytes(LFS)
    with pytest.raises(ModelMissing, match="git lfs pull"):
        Step1Tokenizer(tmp_path)
    file.write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match="cannot be read as a SentencePiece model"):
        Step1Tokenizer(tmp_path)
    proto = protocol.ModelProto.FromString(  # pyright: ignore[reportAttributeAccessIssue]
        (words / "tokenizer.model").read_bytes()
    )
    proto.pieces[65_536].piece = "<speech_0>"
    file.write_bytes(proto.SerializeToString())
    with pytest.raises(ConfigError, match=r"token 65536 is '<speech_0>'"):
        Step1Tokenizer(tmp_path)
