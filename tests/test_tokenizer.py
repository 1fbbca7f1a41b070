"""The dual tokenizer: streams that give what wholes give, and checkpoints that are not what they should be.

Weights are random and small. The numbers of the reference networks are compared in test_parity.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the tokenizer needs torch: pip install stepaudio[step]")

import torch

from stepaudio.bench import tokenizer as benchmark
from stepaudio.bench.samples import clips
from stepaudio.cli import main
from stepaudio.config import Config
from stepaudio.core.audio import AudioChunk
from stepaudio.core.codes import AudioCodes, join
from stepaudio.core.errors import AudioError, ConfigError, ModelMissing, StepAudioError
from stepaudio.tokenizer import features, tiny
from stepaudio.tokenizer.dual import CENTRES_FILE, PARAFORMER_FOLDER, SEMANTIC_FILE, DualStream, DualTokenizer
from stepaudio.tokenizer.linguistic import CHUNK_SAMPLES, EncoderConfig, SanmEncoder
from stepaudio.tokenizer.semantic import NetworkConfig, SemanticStream, SemanticTokenizer, build_network
from tests.parity import SHARED

RATE = 16_000


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer in the layout of the public checkpoint; not to be changed."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.write(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> DualTokenizer:
    return DualTokenizer.load(folder, threads=1)


def speech(seconds: float, rate: int = RATE, seed: int = 0) -> AudioChunk:
    """Chords of five tones and some noise, another every 80 ms."""
    rng, count = np.random.default_rng(seed), round(seconds * rate)
    chords = rng.uniform(80, 3_800, (1 + int(seconds / 0.08), 1, 5))
    places = np.arange(len(chords) * round(0.08 * rate)).reshape(len(chords), -1, 1) / rate
    sound = np.sin(2 * np.pi * chords * places) @ rng.uniform(0, 0.1, (5, 1))
    return AudioChunk((sound.ravel()[:count] + rng.normal(0, 0.01, count)).astype(np.float32), rate)


def lists(codes: AudioCodes) -> tuple[list[int], list[int]]:
    return codes.linguistic.tolist(), codes.semantic.tolist()


def streamed(stream: DualStream, audio: AudioChunk, sizes: list[int]) -> AudioCodes:
    """The audio pushed in pieces of these sizes, over and over."""
    pieces, begin = [], 0
    while begin < len(audio.samples):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(stream.push(AudioChunk(audio.samples[begin : begin + size], audio.rate, begin)))
        begin += size
    return join([*pieces, stream.flush()])


# --- a stream is a whole ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[160], [1, 4000, 333], [CHUNK_SAMPLES], [48_000]], ids=str)
def test_a_stream_gives_the_codes_of_the_whole(tokenizer: DualTokenizer, sizes: list[int]):
    audio = speech(2.3)
    whole = tokenizer.encode(audio)
    assert lists(streamed(tokenizer.stream(), audio, sizes)) == lists(whole)
    assert len(set(whole.linguistic.tolist())) > 10
    assert len(set(whole.semantic.tolist())) > 10


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
def test_at_any_rate(tokenizer: DualTokenizer, rate: int):
    audio = speech(0.9, rate)
    whole = tokenizer.encode(audio)
    assert whole.groups == 7
    assert lists(streamed(tokenizer.stream(), audio, [rate // 100, rate // 7])) == lists(whole)


def test_over_the_edge_of_a_window(folder: Path):
    tokenizer = DualTokenizer.load(folder, threads=1, window_s=0.48)
    audio = speech(1.9)
    whole = tokenizer.encode(audio)
    assert lists(streamed(tokenizer.stream(), audio, [1_000])) == lists(whole)
    stream = tokenizer.stream()
    assert len(stream.push(AudioChunk(audio.samples[:7679], RATE)).semantic) == 0
    assert len(stream.push(AudioChunk(audio.samples[7679:7680], RATE)).semantic) == 12


def test_real_speech_at_pushes_of_10_ms_to_3_s(tokenizer: DualTokenizer, shared_data: Path):
    found = sorted(clips(shared_data, "asr_en") + clips(shared_data, "asr_zh"), key=lambda clip: clip.seconds)
    assert len(found) >= 50
    for i, clip in enumerate(found[:50]):
        size = [160, 480, 1_600, 3_840, 5_000, 16_000, 48_000][i % 7]
        audio = clip.audio
        assert lists(streamed(tokenizer.stream(), audio, [size])) == lists(tokenizer.encode(audio)), clip.path


def test_codes_come_as_soon_as_they_can(tokenizer: DualTokenizer):
    stream, audio = tokenizer.stream(), speech(1)
    counts = [
        len(stream.push(AudioChunk(audio.samples[i : i + 1_920], RATE)).linguistic) for i in (0, 1_920, 3_840)
    ]
    assert counts == [0, 4, 0]


def test_what_a_stream_remembers_does_not_grow(tokenizer: DualTokenizer):
    stream = tokenizer.linguistic.stream()
    for _ in range(3):
        stream.push(speech(3).samples)
        assert [past.shape[2] for past in stream._state.past if past is not None] == [16] * 3
        assert len(stream._held) < CHUNK_SAMPLES
    semantic = SemanticStream(tokenizer.semantic, 7_680)
    semantic.push(speech(3).samples)
    assert sum(map(len, semantic._held)) < 7_680


def test_a_copy_tells_what_an_end_now_would_give(tokenizer: DualTokenizer):
    audio = speech(1.5)
    begun, rest = AudioChunk(audio.samples[:9_000], RATE), AudioChunk(audio.samples[9_000:], RATE)
    stream = tokenizer.stream()
    first = stream.push(begun)
    assert lists(join([first, stream.copy().flush()])) == lists(tokenizer.encode(begun))
    assert lists(join([first, stream.push(rest), stream.flush()])) == lists(tokenizer.encode(audio))


def test_streams_beside_one_another(tokenizer: DualTokenizer):
    audios = [speech(1, seed=seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(tokenizer.encode, audios))
    assert [lists(codes) for codes in together] == [lists(tokenizer.encode(audio)) for audio in audios]


def test_gain_is_loudness(tokenizer: DualTokenizer):
    audio = speech(1)
    louder = AudioChunk(audio.samples * np.float32(8), RATE)
    assert lists(tokenizer.encode(audio, gain=8)) == lists(tokenizer.encode(louder))
    assert lists(tokenizer.encode(audio, gain=8)) != lists(tokenizer.encode(audio))


# --- audio that cannot be used ------------------------------------------------------------------------------


def test_a_tenth_of_a_second_is_enough_and_less_is_too_short(tokenizer: DualTokenizer):
    assert tokenizer.encode(speech(0.1)).groups == 1
    for samples in (0, 100, 400, 800, 1_300):
        audio = speech(samples / RATE)
        with pytest.raises(AudioError, match="too short"):
            tokenizer.encode(audio)
        stream = tokenizer.stream()
        stream.push(audio)
        with pytest.raises(AudioError, match="too short"):
            stream.flush()


@pytest.mark.parametrize(
    "samples", [np.full(2_000, np.nan, np.float32), np.zeros((2_000, 2), np.float32)], ids=["nan", "stereo"]
)
def test_what_is_no_mono_audio(tokenizer: DualTokenizer, samples: np.ndarray):
    with pytest.raises(AudioError, match="mono audio"):
        tokenizer.encode(AudioChunk(samples, RATE))


def test_a_rate_that_changes(tokenizer: DualTokenizer):
    stream = tokenizer.stream()
    stream.push(speech(0.1))
    with pytest.raises(AudioError, match="began at 16000 Hz and goes on at 8000"):
        stream.push(speech(0.1, 8_000))


# --- checkpoints that are not what they should be -----------------------------------------------------------


def model_pt(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / PARAFORMER_FOLDER / "model.pt"
        tensors = torch.load(path, weights_only=True)
        change(tensors)
        torch.save(tensors, path)

    return spoil


def written(name: str, content: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return spoil


def yaml_says(old: str, new: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / PARAFORMER_FOLDER / "config.yaml"
        path.write_text(path.read_text().replace(old, new))

    return spoil


NORM = "encoder.after_norm.weight"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


@pytest.mark.parametrize(
    "spoil, error, says",
    [
        (lambda f: (f / SEMANTIC_FILE).unlink(), ModelMissing, f"{SEMANTIC_FILE} is missing"),
        (written(SEMANTIC_FILE, LFS), ModelMissing, f"{SEMANTIC_FILE} is a Git LFS pointer"),
        (written(SEMANTIC_FILE, b""), ModelMissing, f"{SEMANTIC_FILE} is empty"),
        (written(SEMANTIC_FILE, b"no"), ConfigError, f"{SEMANTIC_FILE} cannot be read as ONNX"),
        (written(f"{PARAFORMER_FOLDER}/model.pt", LFS), ModelMissing, "model.pt is a Git LFS pointer"),
        (written(f"{PARAFORMER_FOLDER}/model.pt", b"no"), ConfigError, "model.pt cannot be read as weights"),
        (model_pt(lambda t: t.pop(NORM)), ConfigError, "after_norm.weight is missing"),
        (model_pt(lambda t: t.update({"encoder.x": t[NORM]})), ConfigError, "x has no place"),
        (
            model_pt(lambda t: t.update({NORM: torch.zeros(9)})),
            ConfigError,
            r"after_norm.weight is \(9,\) and should be \(32,\)",
        ),
        (model_pt(lambda t: t.update(some=1)), ConfigError, "holds no tensors by name"),
        (yaml_says("lfr_m: 7", "lfr_m: 5"), ConfigError, "lfr_m is 5, only 7 is known"),
        (yaml_says("SANMEncoderChunkOpt", "ConformerEncoder"), ConfigError, "encoder is 'ConformerEncoder'"),
        (yaml_says("num_blocks: 3", ""), ConfigError, "cannot be read as a FunASR configuration"),
        (yaml_says("encoder_conf:", "encoder_conf: ["), ConfigError, "cannot be read as a FunASR"),
        (written(f"{PARAFORMER_FOLDER}/am.mvn", b"<Nnet>"), ConfigError, "am.mvn is damaged"),
        (written(CENTRES_FILE, b"no"), ConfigError, f"{CENTRES_FILE} cannot be read as numbers"),
        (
            lambda f: np.save(f / CENTRES_FILE, np.zeros((8, 32))),
            ConfigError,
            r"is \(8, 32\) and should be \(1024, 32\)",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, spoil, error: type[StepAudioError], says: str):
    tiny.write(tmp_path)
    spoil(tmp_path)
    with pytest.raises(error, match=says):
        DualTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "inside, error, says",
    [
        (None, ModelMissing, "set tokenizer.model"),
        ("config.json", ConfigError, "is a language model"),
        ("speech_tokenizer_v2_25hz.onnx", ConfigError, "is a Step-Audio 2 model"),
        ("Step-Audio-Tokenizer/x", ConfigError, "holds several models"),
        ("x", ModelMissing, "config.yaml is missing"),
    ],
)
def test_folders_of_other_models(tmp_path: Path, inside: str | None, error, says: str):
    folder = tmp_path / "model"
    if inside is not None:
        (folder / inside).parent.mkdir(parents=True)
        (folder / inside).touch()
    with pytest.raises(error, match=says):
        DualTokenizer.load(folder)


def test_pickles_that_would_run_code_are_not_read(tmp_path: Path):
    tiny.write(tmp_path)
    torch.save(print, tmp_path / PARAFORMER_FOLDER / "model.pt")
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        DualTokenizer.load(tmp_path)


def test_of_a_recogniser_only_the_encoder_is_read(tmp_path: Path, tokenizer: DualTokenizer):
    from safetensors.torch import save_file

    tiny.write(tmp_path)
    path = tmp_path / PARAFORMER_FOLDER / "model.pt"
    tensors = torch.load(path, weights_only=True)
    tensors["decoder.embed.weight"] = torch.zeros(3)
    torch.save({"state_dict": tensors}, path)
    again = DualTokenizer.load(tmp_path)
    assert lists(again.encode(speech(1))) == lists(tokenizer.encode(speech(1)))
    save_file(tensors, path.with_suffix(".safetensors"))
    path.unlink()
    assert lists(DualTokenizer.load(tmp_path).encode(speech(1))) == lists(tokenizer.encode(speech(1)))


@pytest.mark.parametrize(
    "device, says", [("cuda:9", "no GPU for 'cuda:9'"), ("abacus", "no device 'abacus'")]
)
def test_devices_that_are_not_there(folder: Path, device: str, says: str):
    with pytest.raises(ConfigError, match=says):
        DualTokenizer.load(folder, device=device)


@pytest.mark.parametrize("window_s", [0.1, 0, 30.12])
def test_windows_that_hold_no_whole_groups(folder: Path, window_s: float):
    with pytest.raises(ConfigError, match=f"a window of {window_s} s cannot be used"):
        DualTokenizer.load(folder, window_s=window_s)


def random_network(**sizes: int) -> bytes:
    config = NetworkConfig(n_audio_state=16, n_audio_head=2, n_audio_layer=1, **sizes)
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(shape, np.float32) for name, shape in config.shapes().items()}
    return build_network(weights, config).SerializeToString()


def test_a_semantic_network_of_another_model():
    with pytest.raises(ConfigError, match="another network"):
        SemanticTokenizer(random_network(n_mels=80))
    of_step_audio_2 = SemanticTokenizer(random_network(n_codebook_size=60_000))
    with pytest.raises(ConfigError, match="beyond 4095"):
        of_step_audio_2.codes(speech(30).samples)


def test_weights_of_the_semantic_network_have_their_places():
    config = NetworkConfig(n_audio_state=16, n_audio_head=2, n_audio_layer=1)
    weights = {name: np.zeros(shape, np.float32) for name, shape in config.shapes().items()}
    weights["more"] = weights.pop("encoder.conv1.bias")
    weights["encoder.conv2.bias"] = np.zeros(3, np.float32)
    with pytest.raises(ConfigError) as caught:
        build_network(weights, config)
    for says in ("encoder.conv1.bias is missing", "more has no place", "bias is (3,) and should be (16,)"):
        assert says in str(caught.value)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no manifests of the public checkpoint in ../shared/parity")
def test_at_full_size_every_tensor_has_the_name_and_shape_of_the_public_checkpoint():
    def manifest(pattern: str) -> dict[str, tuple[int, ...]]:
        (path,) = SHARED.glob(pattern)
        return {name: tuple(shape) for name, shape in json.loads(path.read_text()).items()}

    with torch.device("meta"):
        encoder = SanmEncoder(EncoderConfig())
    linguistic = {f"encoder.{name}": tuple(t.shape) for name, t in encoder.state_dict().items()}
    assert linguistic == manifest("*sanm*/manifest_full.json")
    assert NetworkConfig().shapes() == manifest("*s3tokenizer*/manifest_full.json")


# --- prompts ------------------------------------------------------------------------------------------------


def test_peaks_are_raised_but_silence_is_not():
    assert features.peak_gain(np.array([0.1, -0.5])) == pytest.approx(1.998)
    assert features.peak_gain(np.zeros(3)) == pytest.approx(99.9)
    assert features.peak_gain(np.zeros(0)) == pytest.approx(99.9)


def test_silence_around_a_prompt_is_cut():
    samples = np.zeros(32_000, np.float32)
    samples[10_000:20_000] = 0.5
    begin, end = features.speech_span(samples)
    assert abs(begin - 10_000) < 512 and abs(end - 20_000) < 512
    kept = features.trim(samples)
    assert (len(kept) - 800 - 3_520) % 240 == 0
    np.testing.assert_array_equal(kept, samples[begin - 800 : begin - 800 + len(kept)])


def test_a_prompt_that_begins_at_once_gets_silence():
    kept = features.trim(np.full(2_400, 0.5, np.float32))
    assert len(kept) == 2_400 + 800 + 3_520
    np.testing.assert_array_equal(np.flatnonzero(kept), np.arange(800, 3_200))


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    from stepaudio.files import write_audio

    path = tmp_path / "a.wav"
    write_audio(path, [speech(0.5, 8_000)])
    return path


def test_tokenize_prints_json(folder: Path, recording: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["tokenize", str(recording), "--tokenizer", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    codes = AudioCodes(np.array(found["linguistic"]), np.array(found["semantic"]))
    assert (codes.groups, found["ids"], found["seconds"]) == (4, codes.ids(), 0.5)


def test_tokenize_many_files_of_which_one_is_bad(
    folder: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "codes"
    out.mkdir()
    command = ["tokenize", str(recording), str(tmp_path / "none.wav"), "-f", "npz", "--jobs", "2"]
    assert main([*command, "-o", str(out), "--tokenizer", str(folder)]) == 1
    assert "none.wav: there is no such file" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["a.npz"]
    with np.load(out / "a.npz") as arrays:
        assert arrays["ids"].tolist() == AudioCodes(arrays["linguistic"], arrays["semantic"]).ids()


def test_tokenize_as_published_and_as_it_is(folder: Path, recording: Path, tmp_path: Path):
    results = []
    for i, flags in enumerate(([], ["--as-is"], ["--trim"])):
        out = tmp_path / f"{i}.json"
        assert main(["tokenize", str(recording), "-o", str(out), "--tokenizer", str(folder), *flags]) == 0
        results.append(json.loads(out.read_text())["ids"])
    assert results[0] != results[1]
    assert len(results[2]) > len(results[0])  # 270 ms of silence around


@pytest.mark.parametrize(
    "flags, says",
    [
        (["-o", "codes.txt"], "must end in .json or .npz"),
        (["b.wav", "-o", "nowhere"], "is no folder"),
        (["x/a.wav", "-o", "."], "would be written as a.json"),
        (["--jobs", "0"], "--jobs is 1 or more"),
    ],
)
def test_tokenize_used_wrongly(recording: Path, flags: list[str], says: str, capsys):
    assert main(["tokenize", str(recording), *flags]) == 2
    assert says in capsys.readouterr().err


def test_without_torch_it_says_what_to_install(folder: Path, recording: Path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from stepaudio.cli import main\n"
        f"sys.exit(main(['tokenize', {str(recording)!r}, '--tokenizer', {str(folder)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "torch is not installed; get it with: pip install 'stepaudio[step]'" in done.stderr


def test_the_benchmark_at_a_small_size(shared_data: Path, monkeypatch: pytest.MonkeyPatch):
    from rich.console import Console

    write = tiny.write
    monkeypatch.setattr(tiny, "write", lambda folder, **sizes: write(folder))
    monkeypatch.setattr(benchmark, "LENGTHS_S", (1, 2))
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    steps: list[tuple[float, float | None]] = []
    result = benchmark.run(Config(), shared_data, on_progress=lambda *step: steps.append(step))
    assert [row["seconds"] for row in result["realtime_factor"]] == [1, 2]
    assert all(
        row[name] > 0 for row in result["realtime_factor"] for name in ("linguistic", "semantic", "both")
    )
    assert steps[-1] == (7, 7)
    console = Console(width=200)
    with console.capture() as shown:
        console.print(benchmark.render(result))
    assert "longest beside shortest: linguistic" in shown.get()
