"""The command line. Results go to standard output, progress and errors to standard error.

Exit status: 0 done, 1 failed, 2 bad usage, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stepaudio
from stepaudio.cli import bench, singing, speech, verify, voices
from stepaudio.cli.rim import (
    complain,
    console,
    load,
    new_command,
    new_group,
    open_engine,
    print_rich,
    print_rows,
    progress_bar,
    source,
    spinner,
)
from stepaudio.core.errors import BackendError, ConfigError, StepAudioError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from stepaudio.engine import Engine
    from stepaudio.models import Progress as Progress_

SERVED_SLOTS = 4
"""Talks that a service keeps in mind (``llm.slots``). With one, the answers of a second talk waited for those
of the first, and its past was read again: 95 % of the answers came within 2.4 s of the end of speech, with
four within 0.7 to 1.1 s (``bench sessions --only load --limit 2``)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        status = options.run(options) or 0
        sys.stdout.flush()  # here, where a full disk can still be told of
        return status
    except ConfigError as error:
        complain(error)
        return 2
    except StepAudioError as error:
        complain(error)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader went away (`| head`): nothing to tell anyone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        complain(f"cannot write: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush fails again
        return 1


# What there is to type


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(
        prog="stepaudio",
        description="Talk with a model on your own machine: a spoken question gets a spoken answer.",
        epilog="examples:\n"
        "  stepaudio ask question.wav                  answer a spoken question aloud\n"
        '  stepaudio say "It is 5 o\'clock." -o a.wav   speak a text\n'
        "  stepaudio transcribe talk.mp3 -f srt        subtitles\n"
        "  stepaudio COMMAND --help                    more of each",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"stepaudio {stepaudio.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    ask = new_command(
        commands,
        "ask",
        _ask,
        "answer a spoken question aloud",
        "stepaudio ask question.wav -o answer.wav",
        "arecord -f S16_LE -r 16000 -d 5 | stepaudio ask - -o answer.wav",
        "stepaudio ask question.m4a --llm openai:http://127.0.0.1:8000/v1 --json",
    )
    ask.add_argument(
        "file", metavar="FILE", help="the question: wav, flac, mp3, ogg/opus, m4a, webm; - is standard input"
    )
    ask.add_argument(
        "-o",
        "--output",
        default="answer.wav",
        metavar="FILE",
        help="the spoken answer (default: %(default)s; - is standard output)",
    )
    ask.add_argument(
        "--llm", metavar="MODEL", help="model of the store, .gguf file, or openai:http://host:port/v1"
    )
    ask.add_argument("--voice", help="a voice (`stepaudio voices list`)")
    ask.add_argument("--language", help="language of the question: en, zh, auto")
    ask.add_argument("--json", action="store_true", help="print one JSON object")

    speech.add_commands(commands)
    singing.add_commands(commands)
    voices.add_commands(commands)
    verify.add_commands(commands)

    transcribe = new_command(
        commands,
        "transcribe",
        _transcribe,
        "speech to text",
        "stepaudio transcribe talk.mp3",
        "stepaudio transcribe lecture.m4a -f srt -o lecture.srt",
        "cat note.webm | stepaudio transcribe - --language zh -f json --words",
    )
    transcribe.add_argument(
        "file", metavar="FILE", help="wav, flac, mp3, ogg/opus, m4a, webm; - is standard input"
    )
    transcribe.add_argument(
        "-f", "--format", choices=("text", "json", "srt", "vtt"), default="text", help="default: %(default)s"
    )
    transcribe.add_argument("-o", "--output", default="-", metavar="FILE", help="default: standard output")
    transcribe.add_argument("--language", help="en or zh; default: detect it")
    transcribe.add_argument("--fast", action="store_true", help="about twice as fast, a little less exact")
    transcribe.add_argument("--words", action="store_true", help="times of words as well (json)")
    transcribe.add_argument(
        "--json", dest="format", action="store_const", const="json", help="the same as -f json"
    )

    chat = new_command(
        commands,
        "chat",
        _chat,
        "talk through the microphone, or type",
        "stepaudio chat",
        "stepaudio chat --text",
        "stepaudio chat --url http://192.168.1.5:8910 --key KEY",
    )
    chat.add_argument(
        "--url", help="a running server (default: the one on this machine, or else one of its own)"
    )
    chat.add_argument("--key", help="key of the server")
    chat.add_argument("--text", action="store_true", help="type and read instead")
    chat.add_argument("--voice", help="a voice (`stepaudio voices list`)")

    serve = new_command(
        commands,
        "serve",
        _serve,
        "talk in the browser, and serve OpenAI's API",
        "stepaudio serve",
        "stepaudio serve --port 9000 --voice af_bella",
        "stepaudio keys add phone; stepaudio serve --host 0.0.0.0",
    )
    serve.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port (default: 8910; 0: any that is free)")
    serve.add_argument("--api-key", metavar="KEY", help="a key besides those of `stepaudio keys add`")
    serve.add_argument("--sessions", type=int, metavar="N", help="talks at once; default: what is measured")
    serve.add_argument(
        "--llm", metavar="MODEL", help="model of the store, .gguf file, or openai:http://host:port/v1"
    )
    serve.add_argument("--voice", help="a voice (`stepaudio voices list`)")
    serve.add_argument("--verbose", action="store_true", help="log every request (never what is said)")

    replay = new_command(
        commands,
        "replay",
        _replay,
        "decide a recorded talk again (`stepaudio serve --set server.record=FOLDER` records them)",
        "stepaudio replay sess_0123.talk.jsonl",
    )
    replay.add_argument("file", help="recording of a talk")
    replay.add_argument("--json", action="store_true", help="one JSON object")

    keys = new_group(commands, "keys", "who may use the service")
    adding = new_command(
        keys, "add", _keys_add, "make a key, and print it once", "stepaudio keys add phone --scope realtime"
    )
    adding.add_argument("name", metavar="NAME", help="what it is called in lists")
    adding.add_argument("--scope", action="append", metavar="SCOPE", help="only for this; may be repeated")
    adding.add_argument("--sessions", type=int, metavar="N", help="talks at once")
    adding.add_argument("--requests", type=int, metavar="N", help="requests a minute")
    listing = new_command(keys, "list", _keys_list, "list the keys' names", "stepaudio keys list")
    listing.add_argument("--json", action="store_true", help="print JSON")
    removing = new_command(keys, "remove", _keys_remove, "forget a key", "stepaudio keys remove phone")
    removing.add_argument("name", metavar="NAME", help="of `stepaudio keys list`")

    tokenize = new_command(
        commands,
        "tokenize",
        _tokenize,
        "speech to Step-Audio's codes",
        "stepaudio tokenize question.wav --tokenizer Step-Audio-Tokenizer",
        "stepaudio tokenize prompt.wav --trim -o prompt.npz",
        "stepaudio tokenize clips/*.flac -o codes -f npz --jobs 4",
    )
    tokenize.add_argument(
        "files", metavar="FILE", nargs="+", help="wav, flac, mp3, ogg/opus, m4a, webm; - is standard input"
    )
    tokenize.add_argument(
        "-o",
        "--output",
        default="-",
        metavar="FILE",
        help=".json or .npz; for several files a folder (default: standard output, one JSON object a line)",
    )
    tokenize.add_argument(
        "-f", "--format", choices=("json", "npz"), default="json", help="in a folder (default: %(default)s)"
    )
    tokenize.add_argument("--trim", action="store_true", help="cut silence off, as prompts of voices are cut")
    tokenize.add_argument(
        "--as-is", action="store_true", help="leave the level as it is (default: peak to 0.999, as published)"
    )
    tokenize.add_argument("--jobs", type=int, metavar="N", help="files at once (default: one a processor)")
    tokenize.add_argument("--tokenizer", metavar="FOLDER", help="holds the files of Step-Audio-Tokenizer")

    llm = new_group(commands, "llm", "language models that are served")
    serving = new_command(
        llm,
        "serve",
        _llm_serve,
        "serve a Step-1 checkpoint (Step-Audio-Chat, Step-Audio-TTS-3B) with vLLM",
        "stepaudio llm serve Step-Audio-TTS-3B",
        "stepaudio llm serve Step-Audio-Chat --tensor-parallel-size 4 --port 9000",
        "stepaudio llm serve --python /opt/vllm Step-Audio-TTS-3B --dtype float32",
    )
    serving.add_argument(
        "--python", type=Path, metavar="PATH", help="vLLM's environment (default: .venv-vllm; `make vllm`)"
    )
    serving.add_argument("folder", type=Path, metavar="FOLDER", help="config.json, *.safetensors, tokenizer")
    serving.add_argument(
        "flags", nargs=argparse.REMAINDER, metavar="…", help="handed on to vLLM (`vllm serve --help`)"
    )

    models = new_group(commands, "models", "the models on this machine")
    listing = new_command(models, "list", _models_list, "list the models", "stepaudio models list")
    listing.add_argument("--json", action="store_true", help="print JSON")
    for name, run, help in (
        ("pull", _models_pull, "fetch models; without a name: all that the configuration needs"),
        ("verify", _models_verify, "compare files with their sha256; without a name: all that are here"),
        ("path", _models_path, "print the folder of a model"),
        ("remove", _models_remove, "delete models from the store"),
    ):
        command = new_command(models, name, run, help, f"stepaudio models {name} whisper-base")
        many = "*" if name in ("pull", "verify") else "+" if name == "remove" else None
        command.add_argument("model", metavar="MODEL", nargs=many, help="model id (`stepaudio models list`)")

    converting = new_command(
        models,
        "convert",
        _models_convert,
        "write the .pt files of a checkpoint anew as .safetensors, once: nothing in those can be run",
        "stepaudio models convert step-audio-tts-3b",
    )
    converting.add_argument("model", metavar="MODEL", help="model id, folder or .pt file")
    tiny = new_command(
        models,
        "make-tiny",
        _models_make_tiny,
        "write a small Step-Audio with random weights, to see the whole run: its sound is noise",
        "stepaudio models make-tiny tiny && stepaudio ask question.wav --config tiny/stepaudio.toml",
    )
    tiny.add_argument("folder", metavar="FOLDER", help="is made")
    tiny.add_argument("--seed", type=int, default=0, metavar="N", help="of the weights")

    bench.add_commands(commands)

    doctor = new_command(
        commands, "doctor", _doctor, "show the configuration and what is missing", "stepaudio doctor"
    )
    doctor.add_argument("--json", action="store_true", help="print JSON")
    return parser


# What the commands do


def _ask(options: argparse.Namespace) -> int:
    from stepaudio.files import WRITES, check_writable, read_audio, write_audio
    from stepaudio.llm.base import TextDelta
    from stepaudio.recognition.base import Transcript

    engine = open_engine(
        options,
        {"llm.model": options.llm, "tts.voice": options.voice, "recognition.language": options.language},
    )
    check_writable(options.output, WRITES)
    quiet = options.json or options.output == "-"
    out = sys.stderr if quiet else sys.stdout

    def show(event: object) -> None:  # as it comes: the answer is read while it is written
        if isinstance(event, Transcript):
            print(f"You said ({event.language}): {event.text}\nAnswer: ", end="", file=out, flush=True)
        elif isinstance(event, TextDelta):
            print(event.text, end="", file=out, flush=True)

    question = source(options.file)
    if options.file != "-":  # a bad file is told of before the models are loaded; a pipe fills meanwhile
        question = read_audio(question, limit_s=engine.config.audio.limit_s)
    with engine:
        with spinner("loading the models"):
            engine.warm()
        answer = engine.ask(question, on_event=show)
    print(file=out)
    if answer.audio is not None:
        write_audio(options.output, [answer.audio])
    if options.json:
        print(
            json.dumps(
                {
                    "transcript": answer.transcript.text,
                    "language": answer.transcript.language,
                    "answer": answer.text,
                    "audio": options.output if answer.audio is not None else None,
                    "timings_ms": dict(answer.timings_ms),
                },
                ensure_ascii=False,
            )
        )
    elif not quiet:
        print_rich(_stage_table(answer.timings_ms))
        if answer.audio is not None:
            print(f"{options.output}: {answer.audio.seconds:.1f} s of speech")
    if answer.error is not None:
        raise answer.error
    return 0


def _transcribe(options: argparse.Namespace) -> None:
    from stepaudio.files import check_writable, write_text
    from stepaudio.recognition import formats

    check_writable(options.output)
    with open_engine(options) as engine, progress_bar("listening", unit="s") as report:
        transcript = engine.transcribe(
            source(options.file),
            language=None if options.language == "auto" else options.language,
            mode="fast" if options.fast else "accurate",
            words=options.words,
            on_progress=report,
        )
    if not transcript.text:
        print("no speech was heard", file=sys.stderr)
    write_text(options.output, formats.write(transcript, options.format))


def _chat(options: argparse.Namespace) -> None:
    import asyncio

    from stepaudio import chat
    from stepaudio.client import connect

    async def talk(url: str) -> None:
        async with await connect(url, api_key=options.key) as client:
            if options.voice:
                await client.update(audio={"output": {"voice": options.voice}})
            await (chat.write(client) if options.text else chat.talk(client))

    if options.url or options.key:
        asyncio.run(talk(options.url or _here(options)))
        return
    try:
        asyncio.run(talk(_here(options)))
    except BackendError as error:
        if not isinstance(error.__cause__, OSError):  # something is there
            raise
        from stepaudio.server.beside import beside

        with open_engine(options, {"server.port": 0}) as engine, contextlib.ExitStack() as stack:
            with spinner("loading the models"):
                url = stack.enter_context(beside(engine))
            asyncio.run(talk(url))


def _here(options: argparse.Namespace) -> str:
    """Where this machine's server is, if it runs."""
    server = load(options).config.server
    return f"http://{server.host}:{server.port}"


def _serve(options: argparse.Namespace) -> None:
    import logging

    from stepaudio.server import app

    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    engine = open_engine(
        options,
        {
            "server.host": options.host,
            "server.port": options.port,
            "server.api_key": options.api_key,
            "server.sessions": options.sessions,
            "llm.model": options.llm,
            "tts.voice": options.voice,
        },
        {"llm.slots": SERVED_SLOTS},
    )
    with engine:
        app.serve(
            engine,
            on_open=lambda address: print(f"Open {address} (Ctrl-C stops); loading the models …", flush=True),
            on_ready=lambda talks: print(f"Ready, for {talks} talk{'s' * (talks > 1)} at once.", flush=True),
        )
    print("stopped", file=sys.stderr)


def _replay(options: argparse.Namespace) -> int:
    from stepaudio.server.recorder import replay

    with open_engine(options, {}) as engine:
        again = replay(options.file, engine.vad)
    if options.json:
        print(json.dumps(dataclasses.asdict(again), ensure_ascii=False))
    else:
        for at_ms, line in again.decisions:
            print(f"{at_ms / 1000:9.3f} s  {line}")
        print(f"{again.frames} frames heard again, {again.changed} of them otherwise", file=sys.stderr)
    if again.difference is not None:
        then, now = again.difference
        print(f"decided otherwise: then {then or 'nothing'!r}, now {now or 'nothing'!r}", file=sys.stderr)
        return 1
    print("every decision is the same", file=sys.stderr)
    return 0


def _keys_file(options: argparse.Namespace) -> Path:
    from stepaudio.server import auth

    return load(options).config.server.keys or auth.default_file()


def _keys_add(options: argparse.Namespace) -> None:
    from stepaudio.server import auth

    path = _keys_file(options)
    key = auth.add_key(path, options.name, options.scope or auth.SCOPES, options.sessions, options.requests)
    print(key)
    print(
        f"kept in {path} is only its hash: copy it now; a server that runs learns of it when it starts anew",
        file=sys.stderr,
    )


def _keys_list(options: argparse.Namespace) -> None:
    from stepaudio.server import auth

    keys = auth.read_keys(_keys_file(options))
    rows = [
        {
            "name": key.name,
            "for": " ".join(key.scopes),
            "talks": "" if key.sessions is None else str(key.sessions),
            "requests a minute": "" if key.requests_per_minute is None else str(key.requests_per_minute),
        }
        for key in keys
    ]
    if rows or options.json:
        print_rows(rows, options.json)
    else:
        print("there are no keys: the service listens on this machine only, to everyone", file=sys.stderr)


def _keys_remove(options: argparse.Namespace) -> None:
    from stepaudio.server import auth

    auth.remove_key(_keys_file(options), options.name)
    print(f"{options.name}: removed; a server that runs keeps it until it starts anew")


def _tokenize(options: argparse.Namespace) -> int:
    from concurrent.futures import ThreadPoolExecutor, as_completed

    from stepaudio.files import check_writable

    if options.jobs is not None and options.jobs < 1:
        raise ConfigError("--jobs is 1 or more")
    targets = _code_files(options)
    for target in targets:
        check_writable(target)
    engine = open_engine(options, {"tokenizer.model": options.tokenizer})
    with spinner("loading the tokenizer"):
        encode = _encoder(engine, options)
    jobs = min(options.jobs or os.cpu_count() or 1, len(targets))
    bad = 0
    with engine, ThreadPoolExecutor(jobs) as pool, progress_bar("tokenizing", unit="files") as report:
        pairs = zip(options.files, targets, strict=True)
        tasks = {pool.submit(encode, file, target): file for file, target in pairs}
        for done, task in enumerate(as_completed(tasks), 1):
            try:
                task.result()
            except StepAudioError as error:  # one bad file must not cost the others
                complain(error if len(tasks) == 1 else f"{tasks[task]}: {error}")
                bad += 1
            report(done, len(tasks))
    return 1 if bad else 0


def _code_files(options: argparse.Namespace) -> list[str]:
    """Where the codes of each file go."""
    if options.output == "-":
        return ["-"] * len(options.files)
    if len(options.files) == 1 and not Path(options.output).is_dir():
        if Path(options.output).suffix not in (".json", ".npz"):
            raise ConfigError(f"cannot write {options.output}: its name must end in .json or .npz")
        return [options.output]
    folder = Path(options.output)
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: codes of several files go into one; make it first")
    names = [f"{Path(file).stem}.{options.format}" for file in options.files]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(f"several files would be written as {min(twice)}: tokenize them one by one")
    return [str(folder / name) for name in names]


def _encoder(engine: Engine, options: argparse.Namespace) -> Callable[[str, str], None]:
    """A function that tokenizes one file and writes its codes."""
    import threading

    import numpy as np

    from stepaudio.files import read_audio, whole_file
    from stepaudio.tokenizer.features import prepare

    tokenizer = engine.tokenizer

    one_at_a_time = threading.Lock()  # lines on standard output

    def encode(file: str, target: str) -> None:
        audio = read_audio(source(file), None, engine.config.audio.limit_s)
        audio = prepare(audio, level=not options.as_is, cut=options.trim)
        codes = tokenizer.encode(audio)
        with one_at_a_time, whole_file(target) as out:
            if target.endswith(".npz"):
                np.savez(out, linguistic=codes.linguistic, semantic=codes.semantic, ids=codes.ids())
                return
            found = {
                "file": file,
                "seconds": round(audio.seconds, 3),
                "linguistic": codes.linguistic.tolist(),
                "semantic": codes.semantic.tolist(),
                "ids": codes.ids(),
            }
            out.write((json.dumps(found, ensure_ascii=False) + "\n").encode())

    return encode


def _llm_serve(options: argparse.Namespace) -> None:
    import signal

    from stepaudio.llm.serving import Server

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)  # as Ctrl-C: vLLM's processes end with this one
    with Server(options.folder, options.flags, options.python) as server:
        server.wait_ready()
        print(f"Ready: {server.name} at {server.url} (Ctrl-C stops).", flush=True)
        status = server.wait()
    raise BackendError(f"vLLM ended with status {status}; the end of its log says why")


def _models_list(options: argparse.Namespace) -> None:
    from stepaudio.engine import default_models, open_store

    config = load(options).config
    store = open_store(config)
    needed = default_models(config, store)
    rows = [
        {
            "id": id,
            "here": {"present": "yes", "missing": "needed" if id in needed else "no"}.get(
                state := store.status(id).state, state
            ),
            "size": _size(spec.size),
            "licence": spec.licence,
            "purpose": spec.purpose,
        }
        for id, spec in store.specs.items()
    ]
    print_rows(rows, options.json)


def _models_pull(options: argparse.Namespace) -> None:
    from stepaudio.engine import default_models, open_store

    config = load(options).config
    store = open_store(config)
    models = options.model or default_models(config, store)
    with _pull_bars({id: spec.size for id, spec in store.specs.items()}) as report:
        store.pull(models, progress=report)
    print(f"{len(models)} models are in {store.root}")


def _models_verify(options: argparse.Namespace) -> int:
    from stepaudio.engine import open_store

    store = open_store(load(options).config)
    bad = 0
    for id in options.model or [id for id in store.specs if store.status(id).state != "missing"]:
        problems = store.verify(id)
        bad += bool(problems)
        print(f"{id}: {'; '.join(problems) if problems else 'good'}")
    if bad:
        print("get good copies with: stepaudio models pull", file=sys.stderr)
    return 1 if bad else 0


def _models_path(options: argparse.Namespace) -> None:
    from stepaudio.engine import open_store

    print(open_store(load(options).config).path(options.model))


def _models_remove(options: argparse.Namespace) -> None:
    from stepaudio.engine import open_store

    store = open_store(load(options).config)
    for id in options.model:
        there = store.status(id).state != "missing"
        store.remove(id)
        print(f"{id}: removed" if there else f"{id}: was not there")


def _models_convert(options: argparse.Namespace) -> None:
    from stepaudio import checkpoint
    from stepaudio.engine import model_folder, open_store

    place = model_folder(options.model, open_store(load(options).config))
    files = [place] if place.suffix == ".pt" else sorted(place.rglob("*.pt"))
    if not files:
        raise ConfigError(f"{place} holds no .pt files: there is nothing to convert")
    try:
        for file in files:
            with spinner(f"converting {file.name}"):
                print(checkpoint.convert(file))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; get it with: pip install 'stepaudio[step]'"
        ) from error


def _models_make_tiny(options: argparse.Namespace) -> None:
    from stepaudio import tiny

    folder = Path(options.folder)
    try:
        with spinner("writing"):
            tiny.write(folder, options.seed)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; get it with: pip install 'stepaudio[step]'"
        ) from error
    print(f"{folder} holds a small Step-Audio: {tiny.NOTE.strip()}")
    print(f"talk with it: stepaudio ask QUESTION.wav --config {folder / tiny.CONFIGURATION}", file=sys.stderr)


def _doctor(options: argparse.Namespace) -> int:
    from stepaudio.engine import diagnose

    loaded = load(options)
    findings = diagnose(loaded.config)
    missing = [finding for finding in findings if not finding["good"]]
    if options.json:
        settings = {name: {"value": value, "from": origin} for name, value, origin in loaded.rows()}
        print(json.dumps({"settings": settings, "findings": findings}, ensure_ascii=False, indent=2))
    else:
        print_rows([{"setting": n, "value": v, "from": o} for n, v, o in loaded.rows()])
        for finding in findings:
            print(f"{'ok  ' if finding['good'] else 'MISS'} {finding['what']}: {finding['says']}")
    return 1 if missing else 0


# Helpers of the rim


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _stage_table(timings_ms: Any) -> RenderableType:
    from rich import box
    from rich.table import Table

    from stepaudio.timeline import STAGES

    words = {
        "recognition": "understood what was said",
        "first_token": "first word of the answer",
        "first_clause": "first clause written",
        "voice": "first clause turned into sound",
    }
    total = timings_ms.get("first_audio")
    table = Table("stage", "ms", "share", box=box.SIMPLE_HEAD, pad_edge=False)
    for stage, _, _ in STAGES:
        if stage in timings_ms:
            share = f"{timings_ms[stage] / total:.0%}" if total else ""
            table.add_row(words[stage], f"{timings_ms[stage]:.0f}", share)
    if total:
        table.add_row("first audio, from the end of the question", f"{total:.0f}", "100%")
    table.add_row("whole answer spoken to file", f"{timings_ms['spoken']:.0f}", "")
    return table


@contextlib.contextmanager
def _pull_bars(sizes: dict[str, int]) -> Iterator[Callable[[Progress_], None]]:
    """A bar for each model that is being fetched; plain lines where standard error is no terminal."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    terminal = console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    tasks: dict[str, Any] = {}
    files: dict[tuple[str, str], int] = {}
    said: set[str] = set()
    words = {"fetching": "from {}", "failed": "not from {}", "waiting": "waiting for {}", "done": "here"}
    with Progress(*columns, console=terminal, disable=not terminal.is_terminal) as bars:

        def report(step: Progress_) -> None:
            says = words.get(step.state, step.state).format(step.source)
            plain = not terminal.is_terminal and step.state == "fetching"
            if plain or step.state in ("failed", "waiting"):
                line = f"{step.model} {says}".strip()
                if line not in said:
                    bars.console.print(line, markup=False)
                said.add(line)
            if step.file:
                if step.model not in tasks:
                    tasks[step.model] = bars.add_task(step.model, total=sizes[step.model], state="")
                files[step.model, step.file] = step.done
                done = sum(count for (model, _), count in files.items() if model == step.model)
                bars.update(tasks[step.model], completed=done, state=says)

        yield report
