"""The voice of Step-Audio beside the reference: flow, vocoder, speaker, features, prompts.

What does not need torch imports none of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.parity import Case, Kind, Result, compare, same

FLOW, MEL = 2e-5, 5e-5  # of single networks, and of what ten steps make of them


def tensors(case: Case, name: str) -> dict[str, Any]:
    import torch

    return {key: torch.from_numpy(np.array(value)) for key, value in case.tensors(name).items()}


def given(case: Case, name: str) -> dict[str, Any]:
    """The inputs of one single case by their short names."""
    return {
        key.partition(".")[2]: value
        for key, value in tensors(case, "inputs").items()
        if key.startswith(f"{name}.")
    }


def flow_config(case: Case) -> Any:
    from stepaudio.tts.step.flow import FlowConfig

    sizes, cfm = case.config["dims"], case.config.get("cfm", {})
    return FlowConfig(
        vocab=sizes["vocab"],
        frame_rate=sizes["frame_rate"],
        input_size=sizes["input_size"],
        mel=sizes["mel"],
        speaker=sizes["spk"],
        encoder_size=sizes["enc_out"],
        encoder_heads=sizes["enc_heads"],
        encoder_hidden=sizes["enc_ff"],
        encoder_layers=sizes["enc_blocks"],
        channels=tuple(sizes["channels"]),
        head_dim=sizes["head_dim"],
        decoder_heads=sizes["dec_heads"],
        blocks=sizes["n_blocks"],
        middle=sizes["mid"],
        guidance=cfm.get("inference_cfg_rate", 0.7),
        steps=case.config.get("n_timesteps", 10),
    )


def check_flow(case: Case) -> Iterator[Result]:
    """Codes to mel: every stage, one item at a time, all of them as one batch, and in bfloat16."""
    import torch

    from stepaudio import checkpoint
    from stepaudio.tts.step.flow import Flow, Prompt

    flow = Flow(flow_config(case)).eval()
    checkpoint.load(flow, tensors(case, "weights"), case.folder)
    wanted = case.tensors("outputs")
    whole: dict[str, tuple[Any, Any, Any]] = {}
    with torch.inference_mode():
        for key in wanted:
            if key.startswith("t_span_fp32"):
                yield compare(key, flow.decoder.times(torch.device("cpu")), wanted[key], 1e-6)
        for name in case.names:
            x, y = (
                given(case, name),
                {k.partition(".")[2]: v for k, v in wanted.items() if k.startswith(f"{name}.")},
            )
            if "token" not in x:  # the regulator alone
                row = case.config["cases"][name]
                first, second = x["x"][:, : row["len1"]], x["x"][:, row["len1"] :]
                regulator = flow.length_regulator
                parts = [
                    regulator.stretch(first, row["mel_len1"]),
                    regulator.stretch(second, row["mel_len2"]),
                ]
                yield compare(f"{name}.out", regulator(torch.cat(parts, 1)), y["out"], FLOW)
                continue
            prompt = Prompt(x["prompt_token"][0], x["prompt_feat"][0], x["embedding"][0])
            codes, noise = x["token"][0], x["z"][0]
            whole[name] = codes, prompt, noise
            estimate = flow.decoder.estimator(
                x["est_x"], x["est_mu"], x["est_t"], x["est_spks"], x["est_cond"]
            )
            yield compare(f"{name}.est_out", estimate, y["est_out"], FLOW)
            embedded = flow.input_embedding(torch.cat((prompt.codes, codes)).clamp(min=0))[None]
            yield compare(f"{name}.tok_emb", embedded, y["tok_emb"], FLOW)
            yield compare(f"{name}.enc_out", flow.encoder(embedded), y["enc_out"], FLOW)
            encoded, _ = flow.encode([torch.cat((prompt.codes, codes))])
            yield compare(f"{name}.enc_proj", encoded, y["enc_proj"], FLOW)
            frames = flow.config.frames(len(codes))
            yield same(f"{name}.mel_len2", frames, case.config["cases"][name]["mel_len2"])
            mu, _ = flow.condition([codes], [prompt], [frames])
            yield compare(f"{name}.mu", mu, y["mu"], FLOW)
            yield compare(f"{name}.mel", flow([codes], [prompt], [noise])[0][None], y["mel"], MEL)
            yield from check_steps(flow, mu, prompt, noise, name, y)
        batch = flow(*map(list, zip(*whole.values(), strict=True))) if whole else []
        for name, mel in zip(whole, batch, strict=True):
            yield compare(f"{name}.mel_in_a_batch", mel[None], wanted[f"{name}.mel"], MEL)
        flow.bfloat16()
        for name, (codes, prompt, noise) in whole.items():
            if (usual := case.config["cases"][name].get("bf16_vs_fp32_rel_l2")) is None:
                continue
            prompt = Prompt(prompt.codes, prompt.mel.bfloat16(), prompt.speaker.bfloat16())
            mel, exact = flow([codes], [prompt], [noise])[0].numpy(), wanted[f"{name}.mel"][0]
            error = float(np.linalg.norm(mel - exact) / np.linalg.norm(exact))
            yield Result(f"{name}.mel_bf16_relative_l2", error, 2 * usual)


def check_steps(flow: Any, mu: Any, prompt: Any, noise: Any, name: str, wanted: dict) -> Iterator[Result]:
    """The state before each Euler step, the times, and what the estimator says with and without condition."""
    import torch

    seen: list[tuple[Any, Any, Any]] = []

    def note(module: Any, inputs: tuple, output: Any) -> None:
        seen.append((inputs[2][:1], inputs[0][:1], output))

    hook = flow.decoder.estimator.register_forward_hook(note)
    flow.solve(mu, None, [prompt], [mu.shape[1] - len(prompt.mel)], [noise])
    hook.remove()
    times, states, answers = (torch.cat(part) for part in zip(*seen, strict=True))
    ours = {
        "t_per_step": (times, 1e-6),
        "x_per_step": (states, MEL),
        "v_cond_per_step": (answers[0::2], MEL),
        "v_uncond_per_step": (answers[1::2], MEL),
    }
    for what, (values, tolerance) in ours.items():
        if what in wanted:
            yield compare(f"{name}.{what}", values, wanted[what], tolerance)


def check_vocoder(case: Case) -> Iterator[Result]:
    """Mel to waveform: pitch, source, spectrum given the reference's source, and end to end."""
    import torch

    from stepaudio import checkpoint
    from stepaudio.tts.step.vocoder import HiFT, HiFTConfig, fold_weight_norm

    config = HiFTConfig.from_mapping(case.config["dims"])
    hift = HiFT(config).eval()
    checkpoint.load(hift, fold_weight_norm(tensors(case, "weights")), case.folder)
    wanted = tensors(case, "outputs")
    limit = config.limit
    with torch.inference_mode():
        for name in case.names:
            x = given(case, name)
            y = {k.partition(".")[2]: v for k, v in wanted.items() if k.startswith(f"{name}.")}
            mel, phase, noise = x["mel"], x["phase"], x["sine_noise"]
            f0 = hift.f0_predictor(mel)
            yield compare(f"{name}.f0", f0, y["f0"], 1e-3)
            yield compare(f"{name}.source", hift.source(f0, phase, noise), y["source"], 1e-3)
            quiet = hift.source(f0, 0 * phase, 0 * noise)
            yield compare(f"{name}.source_zero_noise", quiet, y["source_zero_noise"], 1e-3)
            stft = torch.cat((y["s_stft_real"], y["s_stft_imag"]), 1)
            yield compare(f"{name}.s_stft", hift.stft(y["source"]), stft, 2e-5)
            magnitude, angle = hift.spectrum(mel, y["source"])
            relative = (magnitude - y["mag"]).abs() / y["mag"]
            yield Result(f"{name}.mag_relative", float(relative.max()), 1e-5)
            yield compare(f"{name}.phase_out", angle, y["phase_out"], 2e-5)
            given_source = hift.invert(magnitude, angle).clamp(-limit, limit)
            yield compare(f"{name}.wav_given_source", given_source, y["wav"], 2e-5)
            yield compare(f"{name}.wav", hift(mel, phase, noise)[0], y["wav"], 5e-3)
            yield compare(
                f"{name}.wav_zero_noise", hift(mel, 0 * phase, 0 * noise)[0], y["wav_zero_noise"], 5e-3
            )
        if "istft.wav_unclamped" in wanted:
            x = given(case, "istft")
            yield compare("istft", hift.invert(x["mag"], x["phase"]), wanted["istft.wav_unclamped"], 2e-5)


def check_speaker(case: Case) -> Iterator[Result]:
    """Filter banks, and the embedding given the reference's."""
    import torch

    from stepaudio import checkpoint
    from stepaudio.tts.step.speaker import CAMPlus, CAMPlusConfig, fbank

    sizes = case.config["dims"]
    config = CAMPlusConfig(
        growth=sizes["growth_rate"],
        bottleneck=sizes["bn_size"],
        init=sizes["init_channels"],
        head=sizes["m_channels"],
        embedding=sizes["embedding_size"],
    )
    network = CAMPlus(config).eval()
    checkpoint.load(network, tensors(case, "weights"), case.folder)
    wanted = tensors(case, "outputs")
    with torch.inference_mode():
        for name in case.names:
            if f"{name}.embedding" not in wanted:
                continue
            features = fbank(given(case, name)["wav"])
            yield compare(f"{name}.fbank", features, wanted[f"{name}.fbank"], 2e-3)
            yield compare(f"{name}.feat", features - features.mean(0), wanted[f"{name}.feat"], 2e-3)
            reference = wanted[f"{name}.feat"][None]
            yield compare(
                f"{name}.head", network.head(reference.transpose(1, 2)), wanted[f"{name}.head"], 5e-4
            )
            yield compare(f"{name}.embedding", network(reference), wanted[f"{name}.embedding"], 5e-4)


def check_mel22k(case: Case) -> Iterator[Result]:
    """The prompt's mel spectrogram."""
    from stepaudio.tts.step.speaker import mel22k, mel_filters

    wanted = case.tensors("outputs")
    yield compare("mel_basis", mel_filters(), wanted["mel_basis"], 1e-6)
    for name in case.names:
        yield compare(f"{name}.feat", mel22k(given(case, name)["wav"][0])[None], wanted[f"{name}.feat"], 1e-4)


def fake_encode(text: str) -> list[int]:
    """The tokenizer of the cases: 999 first, two line feeds 900, any other byte 1000 and its value."""
    parts = text.encode().split(b"\n\n")
    return [999, *[i for n, part in enumerate(parts) for i in (*[900] * (n > 0), *(1000 + b for b in part))]]


def digest(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def case_voices(case: Case) -> dict[str, Any]:
    """The voices of ``config.json`` by mode."""
    from stepaudio.core.codes import FIRST_ID
    from stepaudio.tts.step.prompt import MANNERS, Example, PromptVoice

    def example(text: str, ids: list[int]) -> Example:
        return Example(text, tuple(i - FIRST_ID for i in ids))

    texts, codes, clone = (case.config[name] for name in ("speakers_info", "prompt_codes", "clone"))
    name = min(texts, key=len)
    examples = {m: example(texts[name + m], codes[name + m]) for m in ("", *MANNERS) if name + m in texts}
    cloned = {"": example(clone["prompt_text"], clone["prompt_code"])}
    return {
        "speaker": PromptVoice(name, examples),
        "clone": PromptVoice("", cloned),
        "unknown_speaker": PromptVoice("Nobody", {}),
    }


def check_prompt(case: Case) -> Iterator[Result]:
    """Prompts, routes, the codes that come back, and the repetition window."""
    from stepaudio.core.errors import ConfigError
    from stepaudio.tts.step import prompt

    voices = case_voices(case)
    systems = case.config["sys_prompts"]
    for i, row in enumerate(case.json("cases.json")):
        text, voice = row["text"], voices[row["mode"]]
        yield same(f"{i}.instruction", prompt.leading_tag(text), row["instruction"])
        if "error" in row:
            try:
                prompt.plan(fake_encode, text, voice)
                yield same(f"{i}.error", None, row["error"])
            except ConfigError:
                yield same(f"{i}.error", True, True)
            continue
        plan = prompt.plan(fake_encode, text, voice)
        ids = list(plan.ids)
        system = prompt.system_prompt(text, voice.name)
        after = row["llm_input_after_system"]
        used = voice.name + plan.manner if voice.name else "clone"
        codes = [prompt.code_of(token) for token in row["generated"] if token != prompt.END_OF_TURN]
        flow = {"speech": "common", "music": "music"}[plan.decoder]
        for what, ours, reference in (
            ("system", system, systems[row["sys_prompt_kind"]].replace("{}", voice.name)),
            ("system_sha256", digest(system), row["sys_prompt_sha256"]),
            ("flow_model", flow, row["flow_model"]),
            ("prompt_speaker", used, row["prompt_speaker_used"]),
            ("prompt_token", list(voice.examples[plan.manner].codes), row["prompt_token"]),
            ("head", ids[: len(row["llm_input_head"])], row["llm_input_head"]),
            ("length", len(ids), row["llm_input_len"]),
            ("after_system", ids[-len(after) :], after),
            ("sha256", digest(ids), row["llm_input_sha256"]),
            ("flow_token", codes, row["flow_token"]),
        ):
            yield same(f"{i}.{what}", ours, reference)
    for i, row in enumerate(case.json("tokenize_full.json")):
        example = prompt.Example(row["prompt_text"], tuple(prompt.code_of(c) for c in row["prompt_code"]))
        ids = prompt.layout(fake_encode, row["text"], example, row["prompt_speaker"])
        yield same(f"full.{i}", list(ids), row["ids"])
    from stepaudio.tts.step.language_model import banned

    for i, row in enumerate(case.json("repetition_processor.json")):
        ours = [[] if (token := banned(ids)) is None else [token] for ids in row["input_ids"]]
        yield same(f"repetition.{i}", ours, row["banned"])


def check_causal_flow(case: Case) -> Iterator[Result]:
    """EditX's flow: the estimator, the whole, and the stream chunk by chunk."""
    import torch

    from stepaudio import checkpoint
    from stepaudio.tts.step.causal_flow import BlockState, CausalFlow, CausalFlowConfig
    from stepaudio.tts.step.flow import Prompt

    sizes = case.config["dims"]
    names = {
        "vocab": "vocab",
        "input_size": "inp",
        "mel": "mel",
        "speaker": "spk",
        "encoder_size": "enc",
        "encoder_heads": "heads",
        "encoder_hidden": "ff",
        "encoder_layers": "blocks",
        "up_layers": "up_blocks",
        "depth": "depth",
        "heads": "dheads",
        "head_dim": "dhd",
        "hidden": "hid",
    }
    config = CausalFlowConfig(
        **{ours: sizes[theirs] for ours, theirs in names.items()},
        look_ahead=case.config["pre_lookahead_len"],
        mlp_ratio=case.config["mlp_ratio"],
        guidance=case.config["cfg_rate"],
        steps=case.config["n_timesteps"],
    )
    flow = CausalFlow(config).eval()
    checkpoint.load(flow, tensors(case, "weights"), case.folder)
    wanted = case.tensors("outputs")
    z = tensors(case, "inputs")["z"][0]
    with torch.inference_mode():
        for name in case.names:
            x = given(case, name)
            y = {k.partition(".")[2]: v for k, v in wanted.items() if k.startswith(f"{name}.")}
            prompt = Prompt(x["prompt_token"][0], x["prompt_feat"][0], x["embedding"][0])
            codes = x["token"][0]
            if "est_x" in x:
                states = [BlockState() for _ in range(config.depth)]
                inputs = (x["est_x"], x["est_mu"], x["est_t"], x["est_spks"], x["est_cond"])
                yield compare(f"{name}.est_out", flow.decoder.estimator(*inputs, states), y["est_out"], FLOW)
                mu = flow.conditions(torch.cat((prompt.codes, codes)))
                yield compare(f"{name}.mu", mu, y["mu"], FLOW)
                frames = 2 * (len(prompt.codes) + len(codes))
                yield compare(f"{name}.mel", flow(codes, prompt, z[:, :frames])[None], y["mel"], MEL)
                continue
            chunks = case.config["cases"][name]["chunks_tokens_in_mel_out"]
            state = flow.start(prompt, codes[: config.look_ahead], z[:, : 2 * len(prompt.codes)])
            at = 0
            for number, (rows, frames) in enumerate(chunks):
                last = number == len(chunks) - 1
                noise = z[:, state.frames : state.frames + frames]
                mel = flow.run(state, codes[at : at + rows], prompt, noise, last)
                yield compare(f"{name}.{number}.mel", mel[None], y[f"{number}.mel"], MEL)
                at += frames // 2


KINDS = [
    Kind("flow of TTS-3B", lambda case: {"tok_emb", "est_out", "mu"} <= case.keys, check_flow),
    Kind("flow of EditX", lambda case: "pre_lookahead_len" in case.config, check_causal_flow),
    Kind("HiFT", lambda case: {"f0", "source", "s_stft_real"} <= case.keys, check_vocoder),
    Kind("CAM++", lambda case: {"embedding", "head", "fbank"} <= case.keys, check_speaker),
    Kind("mel at 22.05 kHz", lambda case: "mel_basis" in case.keys, check_mel22k),
    Kind("prompts of TTS-3B", lambda case: "fake_tokenizer" in case.config, check_prompt),
]
