"""The dual tokenizer beside the reference: features, encoders, codes, the merge, preparation of prompts.

What does not need torch imports none of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np

from stepaudio.core.audio import AudioChunk
from stepaudio.core.codes import AudioCodes, editx_pairs
from stepaudio.core.resampling import resample_sinc
from stepaudio.tokenizer import features
from stepaudio.tokenizer.semantic import WINDOW_S, SemanticStream, window_samples
from tests.parity import Case, Kind, Result, compare, same

CHUNK = 3840
"""Samples that the reference feeds its online front end with at a time."""


def online_frames(samples: np.ndarray) -> list[np.ndarray]:
    """Stacked frames, chunk by chunk; the last chunk, which may be empty, is the final one."""
    stream = features.StackedFrames()
    chunks = [samples[at : at + CHUNK] for at in range(0, len(samples) + 1, CHUNK)]
    return [stream.push(chunk, final=i == len(chunks) - 1) for i, chunk in enumerate(chunks)]


def check_frontend(case: Case) -> Iterator[Result]:
    """Kaldi features, stacked and normalised; whole and chunk by chunk."""
    given, wanted = case.tensors("inputs"), case.tensors("outputs")
    cmvn = features.read_cmvn(case.folder / "am.mvn")
    yield compare("cmvn", cmvn, wanted["cmvn"], 1e-6)
    for name in case.names:
        samples = given[f"{name}.wav"]
        frames = features.fbank(samples)
        yield compare(f"{name}.fbank", frames, wanted[f"{name}.fbank"], 2e-3)
        stacked, _ = features.stack(np.concatenate([features.first_context(frames), frames]), final=True)
        yield compare(f"{name}.lfr", stacked, wanted[f"{name}.lfr"], 2e-3)
        yield compare(f"{name}.lfr_cmvn", (stacked + cmvn[0]) * cmvn[1], wanted[f"{name}.lfr_cmvn"], 5e-4)
        online = [chunk for chunk in online_frames(samples) if len(chunk)]
        counts = case.config["cases"][name].get("online_frames_per_chunk")
        if counts is not None:
            yield same(f"{name}.online_frames_per_chunk", [len(c) for c in online], [n for n in counts if n])
        if (reference := wanted.get(f"{name}.online")) is not None:
            stacks = np.concatenate([np.empty((0, 560), np.float32), *online])
            yield compare(f"{name}.online", (stacks + cmvn[0]) * cmvn[1], reference, 5e-4)


def check_log_mel(case: Case) -> Iterator[Result]:
    """Whisper's features with 128 bands, and where long audio is cut."""
    given, wanted = case.tensors("inputs"), case.tensors("outputs")
    yield compare("mel_filters_128", features.SLANEY_FILTERS, wanted["mel_filters_128"], 1e-6)
    for name in case.names:
        yield compare(f"{name}.feat", features.log_mel(given[f"{name}.wav"]), wanted[f"{name}.feat"], 1e-4)
    for row in case.config.get("split_30s", ()):
        network = _Lengths()
        stream = SemanticStream(network, window_samples(WINDOW_S))
        stream.push(np.zeros(row["samples"], np.float32))
        stream.flush()
        windows = [end - begin for begin, end in row["chunks"]]
        yield same(f"split_30s.{row['samples']}", network.heard, windows)


def check_merge(case: Case) -> Iterator[Result]:
    """Two streams merged two to three, as ids and as names, and back."""
    for i, row in enumerate(case.json("cases.json")):
        codes = AudioCodes(np.array(row["vq02"], int), np.array(row["vq06"], int))
        back = [AudioCodes.from_ids(row["token_ids"]), AudioCodes.from_text(row["token_str"])]
        split = (row["deinterleaved_vq02"], row["deinterleaved_vq06"])
        yield same(f"{i}.token_ids", codes.ids(), row["token_ids"])
        yield same(f"{i}.token_str", codes.text(), row["token_str"])
        yield same(f"{i}.flow_tokens", codes.merged().tolist(), row["flow_tokens"])
        for way, other in zip(("ids", "str"), back, strict=True):
            yield same(f"{i}.back_from_{way}", (other.linguistic.tolist(), other.semantic.tolist()), split)
    if case.has("editx_reshape.json"):
        for i, row in enumerate(case.json("editx_reshape.json")):
            yield compare(
                f"{i}.editx_pairs", editx_pairs(row["tokens"]), np.reshape(row["out"], row["shape"])
            )


def check_preparation(case: Case) -> Iterator[Result]:
    """Resampled to 16 kHz (and 22.05 kHz), peak raised, silence cut."""
    given, wanted = case.tensors("inputs"), case.tensors("outputs")
    for name in case.names:
        row, samples = case.config["cases"][name], given[f"{name}.wav"][0]
        resampled = resample_sinc(samples, row["sr"], features.RATE)
        yield compare(f"{name}.resampled", resampled[None], wanted[f"{name}.resampled"], 1e-5)
        audio = AudioChunk(samples, row["sr"])
        loud = features.prepare(audio).samples
        yield compare(f"{name}.norm", loud[None], wanted[f"{name}.norm"], 1e-5)
        yield same(f"{name}.trim_index", list(features.speech_span(loud)), row["trim_index"])
        yield compare(
            f"{name}.trim", features.prepare(audio, cut=True).samples[None], wanted[f"{name}.trim"], 1e-5
        )
        if (at_22050 := wanted.get(f"{name}.resampled_22050")) is not None:
            yield compare(
                f"{name}.resampled_22050", resample_sinc(samples, row["sr"], 22_050)[None], at_22050, 1e-5
            )


def linguistic(case: Case) -> Any:
    """Our linguistic half with the weights of a case."""
    import torch

    from stepaudio import checkpoint
    from stepaudio.tokenizer.linguistic import (
        EncoderConfig,
        LinguisticTokenizer,
        SanmEncoder,
        encoder_tensors,
    )

    dims = case.config["dims"]
    encoder = SanmEncoder(EncoderConfig(**{f.name: dims[f.name] for f in fields(EncoderConfig)}))
    weights = case.tensors("weights")
    tensors = {name: torch.tensor(value) for name, value in weights.items()}
    checkpoint.load(encoder, encoder_tensors(tensors), case.folder / "weights.safetensors")
    return LinguisticTokenizer(encoder, features.read_cmvn(case.folder / "am.mvn"), weights["kms"])


def codes_where_sure(
    name: str, ours: np.ndarray, reference: np.ndarray, margin: np.ndarray, error: float
) -> Result:
    """Equality of codes, except where the two nearest entries are nearer to one another than ``error``."""
    if ours.shape != reference.shape:
        return compare(name, ours, reference)
    return compare(name, np.where(margin > error, ours, reference), reference)


def check_linguistic(case: Case) -> Iterator[Result]:
    """The streaming encoder and the nearest centres: from features, from audio, in pieces."""
    import torch

    given, wanted = case.tensors("inputs"), case.tensors("outputs")
    tokenizer = linguistic(case)
    unscaled = tokenizer.encoder.config.output_size**0.5
    for name in case.names:
        row, samples = case.config["cases"][name], given[f"{name}.wav"]
        streamed = [tokenizer.stream() for _ in range(2)]
        if "pieces" in row:
            stream, at = streamed[0], 0
            for i, size in enumerate(row["pieces"]):
                codes = [stream.push(samples[at : at + size])]
                at += size
                if i == len(row["pieces"]) - 1:
                    codes.append(stream.flush())
                yield same(f"{name}.{i}.frames", sum(map(len, codes)), row["frames_per_piece"][i])
            outputs = encode_audio(tokenizer, samples)
            at = 0
            for i, size in enumerate(row["frames_per_piece"]):
                if size:
                    yield compare(
                        f"{name}.{i}.enc_out",
                        outputs[None, at : at + size],
                        wanted[f"{name}.{i}.enc_out"],
                        1e-3,
                    )
                at += size
            yield compare(f"{name}.whole.enc_out", outputs[None], wanted[f"{name}.whole.enc_out"], 1e-3)
            continue
        codes = np.concatenate([streamed[0].push(samples), streamed[0].flush()])
        reference = wanted.get(f"{name}.codes", np.empty(0, np.int64))
        if f"{name}.enc_out" not in wanted:
            yield compare(f"{name}.codes", codes, reference)
            continue
        nearest = np.sort(wanted[f"{name}.dist"], axis=1)
        margin = nearest[:, 1] - nearest[:, 0]
        with torch.inference_mode():
            state, sizes = tokenizer.encoder.begin(), [n for n in row["frames_per_chunk"] if n]
            chunks = list(torch.tensor(given[f"{name}.feats"][0]).split(sizes))
            first = len(row.get("raw_chunk_lens", ()))
            outputs = tokenizer.encoder(chunks[:first], state)
            if first:
                overlap, keys = state.overlap[None], state.past[0][0][None]
                yield compare(f"{name}.cache_feats", overlap, wanted[f"{name}.cache_feats_after"], 2e-5)
                yield compare(f"{name}.cache_k", keys, wanted[f"{name}.cache_k_layer0_after"], 2e-5)
            from_features = torch.cat([*outputs, *tokenizer.encoder(chunks[first:], state)])
            distances = tokenizer.distances(from_features)
            yield compare(f"{name}.enc_out", from_features[None], wanted[f"{name}.enc_out"], 2e-5)
            yield compare(f"{name}.dist", distances, wanted[f"{name}.dist"], 1e-3)
            yield codes_where_sure(f"{name}.codes", distances.argmin(1).numpy(), reference, margin, 1e-4)
            if (whole := wanted.get(f"{name}.full_context_enc_out")) is not None:
                x = torch.tensor(given[f"{name}.feats"][0])
                x = x * unscaled + tokenizer.encoder._positions(0, x)
                for layer in (*tokenizer.encoder.encoders0, *tokenizer.encoder.encoders):
                    x, _ = layer(x, None)
                yield compare(
                    f"{name}.full_context_enc_out", tokenizer.encoder.after_norm(x)[None], whole, 2e-5
                )
        yield compare(
            f"{name}.enc_out_from_wav",
            encode_audio(tokenizer, samples)[None],
            wanted[f"{name}.enc_out"],
            1e-3,
        )
        yield codes_where_sure(f"{name}.codes_from_wav", codes, reference, margin, 1e-3)


def encode_audio(tokenizer: Any, samples: np.ndarray) -> np.ndarray:
    """Outputs of the encoder for a whole recording, shape (n, size)."""
    state = tokenizer.encoder.begin()
    return np.concatenate(tokenizer.encode([f for f in online_frames(samples) if len(f)], state))


def check_semantic(case: Case) -> Iterator[Result]:
    """The semantic network, written as ONNX and run by onnxruntime."""
    from stepaudio.tokenizer.semantic import NetworkConfig, SemanticTokenizer, build_network

    given, wanted = case.tensors("inputs"), case.tensors("outputs")
    dims = {f.name: case.config["dims"][f.name] for f in fields(NetworkConfig)}
    network = build_network(case.tensors("weights"), NetworkConfig(**dims))
    tokenizer = SemanticTokenizer(network.SerializeToString())
    for name in case.names:
        feats, reference = given[f"{name}.feat"], wanted[f"{name}.codes"]
        margin = wanted[f"{name}.margin"]
        codes, hidden = tokenizer.run(feats[0], ["indices", "hidden"])
        yield compare(f"{name}.hidden", hidden, wanted[f"{name}.hidden"], 5e-5)
        yield codes_where_sure(f"{name}.codes", codes, reference, margin, 1e-4)
        own_feats = features.log_mel(given[f"{name}.wav"])
        yield compare(f"{name}.feat", own_feats[None], feats, 1e-4)
        from_audio = tokenizer.codes(given[f"{name}.wav"])
        yield codes_where_sure(f"{name}.codes_from_wav", from_audio, reference[0], margin, 1e-3)


class _Lengths:
    """In place of a network: one code a window, and a note of how much it heard."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def codes(self, samples: np.ndarray) -> np.ndarray:
        self.heard.append(len(samples))
        return np.zeros(1, np.int64)


KINDS = [
    Kind("linguistic front end", lambda case: {"fbank", "online"} <= case.keys, check_frontend),
    Kind("log mel, 128 bands", lambda case: "mel_filters_128" in case.keys, check_log_mel),
    Kind(
        "merge",
        lambda case: case.has("cases.json") and "token_ids" in case.config.get("fields", ()),
        check_merge,
    ),
    Kind("linguistic network", lambda case: {"enc_out", "kms"} <= case.keys, check_linguistic),
    Kind("semantic network", lambda case: {"hidden", "margin"} <= case.keys, check_semantic),
    Kind("preparation", lambda case: {"resampled", "trim"} <= case.keys, check_preparation),
]
