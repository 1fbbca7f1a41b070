"""The house keeps its shape: who may import whom, and what a bare import may load.

The table is docs/architecture.md, section "Direction of imports", as code. A row names a part of the
tree (longest prefix wins) and the parts of ours that it may import besides itself.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "stepaudio").rglob("*.py"))

CORE = {"stepaudio.core"}
ENGINE_NEEDS = CORE | {"stepaudio.models", "stepaudio.files", "stepaudio.checkpoint", "stepaudio.published"}
PROTOCOLS = {"stepaudio.recognition.base", "stepaudio.llm.base", "stepaudio.tts.base"}
ENGINES = {"stepaudio.recognition", "stepaudio.tokenizer", "stepaudio.llm", "stepaudio.tts"}
MIDDLE = CORE | PROTOCOLS | {"stepaudio.threads"}
EVERYTHING = ENGINE_NEEDS | ENGINES | MIDDLE | {"stepaudio.respond", "stepaudio.timeline", "stepaudio.config"}
RIM = {
    "stepaudio.bench",
    "stepaudio.server",
    "stepaudio.client",
    "stepaudio.chat",
    "stepaudio.batch",
    "stepaudio.documents",
}

MAY_IMPORT = {
    "stepaudio.core": set(),
    "stepaudio.models": CORE | {"stepaudio.published"},
    "stepaudio.published": CORE | {"stepaudio.checkpoint"},
    "stepaudio.containers": set(),
    "stepaudio.epub": CORE,
    "stepaudio.documents": CORE | {"stepaudio.epub"},
    "stepaudio.files": CORE | {"stepaudio.containers"},
    "stepaudio.threads": CORE,
    "stepaudio.timeline": CORE,
    "stepaudio.client": CORE,
    "stepaudio.chat": CORE | {"stepaudio.client"},
    "stepaudio.config": CORE,
    "stepaudio.checkpoint": CORE | {"stepaudio.files"},
    "stepaudio.recognition": ENGINE_NEEDS,
    "stepaudio.tokenizer": ENGINE_NEEDS,
    "stepaudio.llm": ENGINE_NEEDS | {"stepaudio.threads"},
    "stepaudio.tts": ENGINE_NEEDS,
    "stepaudio.respond": MIDDLE,
    "stepaudio.engine": EVERYTHING,
    "stepaudio.tiny": EVERYTHING,
    "stepaudio.batch": EVERYTHING | {"stepaudio.engine", "stepaudio.documents", "stepaudio.containers"},
    "stepaudio.cloning": EVERYTHING | {"stepaudio.engine"},
    "stepaudio.bench": EVERYTHING | {"stepaudio.engine", "stepaudio.cloning", "stepaudio.client"},
    "stepaudio.server": EVERYTHING | {"stepaudio.engine"},
    "stepaudio.cli": EVERYTHING
    | RIM
    | {"stepaudio.engine", "stepaudio.cloning", "stepaudio.tiny", "stepaudio"},
    "stepaudio.__main__": {"stepaudio.cli"},
    "stepaudio": {"stepaudio.engine"},
}

FENCES = {  # third party: the only places that may import it
    "torch": {
        "stepaudio.checkpoint",
        "stepaudio.tokenizer",
        "stepaudio.llm.step1",
        "stepaudio.tts.step",
        "stepaudio.tts.decoder",
        "stepaudio.tts.cloning",
        "stepaudio.recognition.speaker_gradient",
        "stepaudio.cloning",  # sets the number of its threads
        "stepaudio.bench.tokenizer",
        "stepaudio.bench.vocoder",
        "stepaudio.bench.window",
    },
    "transformers": {"stepaudio.llm.step1", "stepaudio.bench.window"},
    "sentencepiece": {"stepaudio.llm.step1"},
    "vllm": {"stepaudio.llm.step1"},
    "onnxruntime": {
        "stepaudio.recognition",
        "stepaudio.tokenizer",
        "stepaudio.tts",
        "stepaudio.bench.tts",
        "stepaudio.bench.measures",
    },
    "openai": {"stepaudio.llm.openai_chat"},
    "xllamacpp": {"stepaudio.llm.llama_cpp"},
    "soundfile": {"stepaudio.files", "stepaudio.server.encoders", "stepaudio.bench.voice_watermark"},
    "websockets": {"stepaudio.client"},
    "sounddevice": {"stepaudio.chat"},
    "sphn": {"stepaudio.files"},
    "av": {"stepaudio.files"},
    "pydantic": {"stepaudio.config", "stepaudio.core.protocol", "stepaudio.server.rest"},
    "huggingface_hub": {"stepaudio.models"},
    "faster_whisper": {"stepaudio.bench"},
    "pyworld": {"stepaudio.bench.measures"},
    "rich": {"stepaudio.cli", "stepaudio.bench"},
    "fastapi": {"stepaudio.server"},
    "starlette": {"stepaudio.server"},
    "uvicorn": {"stepaudio.server"},
    "prometheus_client": {"stepaudio.server.metrics"},
    "opentelemetry": {"stepaudio.server.metrics"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, place: str) -> bool:
    return name == place or name.startswith(place + ".")


def own_row(name: str) -> str:
    return max((row for row in MAY_IMPORT if within(name, row)), key=len)


def is_module(name: str) -> bool:
    path = ROOT / Path(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_direction_of_imports(path: Path):
    name = module_name(path)
    row = own_row(name)
    if row == "stepaudio" and name != "stepaudio":
        pytest.fail(f"{name} has no row in MAY_IMPORT")
    ours = {used for used in imports(path) if within(used, "stepaudio") and is_module(used)} - {"stepaudio"}
    allowed = MAY_IMPORT[row] | ({row} if row != "stepaudio" else set())
    wrong = {used for used in ours if not any(within(used, place) for place in allowed)}
    assert not wrong


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_fences(path: Path):
    name = module_name(path)
    for package, places in FENCES.items():
        if any(within(used, package) for used in imports(path)):
            assert any(within(name, place) for place in places), f"{name} may not import {package}"


@pytest.mark.parametrize("path", [p for p in FILES if "core" in p.parts], ids=module_name)
def test_the_pure_ring_has_no_clock_thread_or_network(path: Path):
    impure = {"asyncio", "threading", "time", "socket", "os", "subprocess", "random", "pathlib", "logging"}
    assert not {used.split(".")[0] for used in imports(path)} & impure
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not any(
        isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor) for node in ast.walk(tree)
    )


def test_import_loads_nothing_heavy():
    heavy = ["torch", "onnxruntime", "onnx", "ctranslate2", "xllamacpp", "openai", "huggingface_hub", "rich"]
    code = f"import sys, stepaudio; sys.exit(' '.join(m for m in {heavy} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
