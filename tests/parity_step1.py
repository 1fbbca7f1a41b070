"""Step-1 beside the reference: logits, every layer, greedy words, caches, batches, bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.parity import Case, Kind, Result, compare, same

LOGITS = 5e-4
BF16_MARGIN = 2  # times the reference's own error in bfloat16


def fixtures(case: Case) -> dict[str, dict[str, Any]]:
    return case.config["_fixture"]["cases"]


def check_step1(case: Case) -> Iterator[Result]:
    import torch

    from stepaudio.llm.step1.network import load

    network: Any = load(case.folder, dtype=torch.float32)
    network.generation_config.eos_token_id = None  # the reference goes on
    fixture, wanted = case.config["_fixture"], case.tensors("outputs")
    prompts = {
        name: torch.from_numpy(np.array(ids))
        for name, ids in ((n, case.tensors("inputs")[f"{n}.input_ids"]) for n in fixtures(case))
    }
    if "alibi_slopes" in fixture:
        from stepaudio.llm.step1.network import slopes

        ours = slopes(case.config["num_attention_heads"]).tolist()
        yield compare("alibi_slopes", ours, fixture["alibi_slopes"], 1e-7)
    last: dict[int, Any] = {}
    for number, layer in enumerate(network.model.layers):
        layer.register_forward_hook(lambda _, __, x, number=number: last.update({number: x[0, -1]}))
    with torch.inference_mode():
        for name, ids in prompts.items():
            logits = wanted[f"{name}.logits"]
            rows = len(logits)
            whole = network(ids[None]).logits[0]
            yield compare(f"{name}.logits", whole[-rows:], logits, LOGITS)
            hidden = torch.stack([last[number] for number in sorted(last)])
            yield compare(f"{name}.hidden", hidden, wanted[f"{name}.hidden_per_layer_last_pos"], LOGITS)
            step = min(64, len(ids))
            pieces, cache = [], None
            for piece in ids.split(step):
                answer = network(piece[None], past_key_values=cache, use_cache=True)
                cache = answer[_cache_name(answer)]
                pieces.append(answer.logits[0])
            yield compare(f"{name}.logits_in_pieces", torch.cat(pieces)[-rows:], logits, LOGITS)
            greedy = wanted[f"{name}.greedy16"]
            found = network.generate(
                ids[None],
                attention_mask=torch.ones_like(ids)[None],
                max_new_tokens=len(greedy),
                do_sample=False,
            )
            yield same(f"{name}.greedy", found[0, len(ids) :].tolist(), greedy.tolist())
        longest = max(map(len, prompts.values()))
        for side in ("left", "right"):
            batch = torch.zeros(len(prompts), longest, dtype=torch.long)
            mask = torch.zeros_like(batch)
            for row, ids in enumerate(prompts.values()):
                place = slice(longest - len(ids), longest) if side == "left" else slice(0, len(ids))
                batch[row, place], mask[row, place] = ids, 1
            answers = network(batch, attention_mask=mask).logits
            for row, name in enumerate(prompts):
                logits = wanted[f"{name}.logits"]
                ours = answers[row][mask[row].bool()][-len(logits) :]
                yield compare(f"{name}.logits_padded_{side}", ours, logits, LOGITS)
        network.bfloat16()
        for name, ids in prompts.items():
            exact = wanted[f"{name}.logits"]
            ours = network(ids[None]).logits[0, -len(exact) :].float().numpy()
            error = float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))
            yield Result(
                f"{name}.bf16_relative_l2", error, BF16_MARGIN * fixtures(case)[name]["bf16_vs_fp64_rel_l2"]
            )


def _cache_name(answer: Any) -> str:
    return "cache" if "cache" in answer else "past_key_values"


KINDS = [Kind("Step-1", lambda case: "Step1ForCausalLM" in case.config.get("architectures", []), check_step1)]
