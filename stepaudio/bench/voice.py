"""``bench voice``: whether the voices do what they are asked, group by group.

A group of cases is a function in a module beside this one (``GROUPS``). Each case is something that was
spoken or sung, what was measured of it, and what it should reach; the rows of a group that hold for all of
its cases together are cases without audio. ``report`` makes a page of them, to listen to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from stepaudio.bench.measures import PLAN_STEP_S
from stepaudio.config import Config
from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import ConfigError, StepAudioError, unknown
from stepaudio.engine import Engine

if TYPE_CHECKING:
    from rich.console import RenderableType

GROUPS = {
    "identity": ("voice_rendering.identity", "Taken apart and put together, nothing asked"),
    "streaming": ("voice_rendering.streaming", "Kokoro piece by piece"),
    "speed": ("voice_rendering.speed", "Speed"),
    "pitch": ("voice_rendering.pitch", "Pitch"),
    "emotions": ("voice_emotion.cases", "Emotions"),
    "sichuanese": ("voice_dialect.sichuanese", "Sichuanese"),
    "cantonese": ("voice_dialect.cantonese", "Cantonese"),
    "singing": ("voice_singing.cases", "Singing"),
    "rap": ("voice_rap.cases", "Rap"),
    "clone": ("voice_clone.cases", "Cloned voices"),
    "watermark": ("voice_watermark.cases", "Watermark"),
}
"""Name of a group: its function (module of this package and name), and its title."""

Bound = tuple[Literal["<=", ">=", "=="], float]


@dataclass(frozen=True, slots=True, eq=False)
class Plot:
    """Pitch to draw: Hz, 0 (asked: below 40) where there is no voice. Both begin with the audio.

    Attributes:
        asked: a value for every ``asked_step_s``; None: nothing was asked.
        realised: as ``measures.pitch_track`` gives it; None: the report tracks it.
        asked_step_s: seconds.
    """

    asked: np.ndarray | None = None
    realised: np.ndarray | None = None
    asked_step_s: float = PLAN_STEP_S


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What was spoken, what was measured of it, and what it should reach.

    Attributes:
        name: says what is special about it; unique in its group.
        group: key of ``GROUPS``.
        audio: None: a row about the whole group.
        figures: by name, units in it ("error, cents").
        targets: of some figures.
        plot: pitch beside the spectrogram.
        text: what is said or sung.
    """

    name: str
    group: str
    audio: AudioChunk | None
    figures: Mapping[str, float | str]
    targets: Mapping[str, Bound] = field(default_factory=dict)
    plot: Plot | None = None
    text: str = ""

    def __post_init__(self) -> None:
        for name in self.targets:
            if not isinstance(self.figures.get(name), int | float | np.number):
                raise ValueError(f"{self.group}, {self.name}: a target of {name!r}, which was not measured")

    def met(self, name: str) -> bool | None:
        """Whether a figure reaches its target; None: it has none."""
        if name not in self.targets:
            return None
        how, bound = self.targets[name]
        value = float(self.figures[name])
        if how == "==":
            return value == bound
        return value <= bound if how == "<=" else value >= bound


class Group(Protocol):
    """Makes the cases of a group.

    Args:
        engine: to speak and to judge with.
        data: folder of test data.
        limit: at most so many sentences (songs, voices) of each kind; None: all.
        step: to be called after each, for the progress bar.
    """

    def __call__(
        self, engine: Engine, data: Path, limit: int | None, step: Callable[[], None]
    ) -> Iterator[Case]: ...


def run(
    config: Config,
    data: Path,
    *,
    limit: int | Mapping[str, int] | None = None,
    only: Sequence[str] = (),
    report: Path | None = None,
    on_progress: Callable[[float, float | None], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure the groups named in ``only`` (default: all).

    Args:
        limit: as of ``Group``, for all groups or for those that are named.
        report: an html file to write, with everything to listen to.

    Raises:
        ConfigError: there is no such group, or the report cannot be written.
    """
    from stepaudio.bench.report import Report
    from stepaudio.files import check_writable

    limits = limit if isinstance(limit, Mapping) else dict.fromkeys(GROUPS, limit)
    for name in (*only, *limits):
        if name not in GROUPS:
            raise unknown("group", name, GROUPS)
    page = Report()
    if report is not None:
        check_writable(report, (".html",))
    groups: dict[str, Any] = {}
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        on_progress(done, None)

    with Engine(config) as engine:
        for name in only or GROUPS:
            where, title = GROUPS[name]
            group: dict[str, Any] = {"title": title, "cases": []}
            groups[name] = group
            try:
                for case in _function(where)(engine, data, limits.get(name), step):
                    group["cases"].append(_row(case))
                    if report is not None:
                        page.add(case)
            except (
                StepAudioError
            ) as error:  # what one group lacks does not keep the others from being measured
                group["error"] = str(error)
        result = {"threads": config.tts.threads, "groups": groups}
        if report is not None:
            page.write(report, {name: title for name, (_, title) in GROUPS.items() if name in groups})
    return result


def _function(where: str) -> Group:
    module, name = where.split(".")
    try:
        return getattr(import_module(f"stepaudio.bench.{module}"), name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed") from error


def _row(case: Case) -> dict[str, Any]:
    """A case as plain data."""
    return {
        "name": case.name,
        "text": case.text,
        "seconds": None if case.audio is None else round(case.audio.seconds, 2),
        "figures": {name: plain(value) for name, value in case.figures.items()},
        "targets": {name: f"{how} {bound:g}" for name, (how, bound) in case.targets.items()},
        "met": {name: case.met(name) for name in case.targets},
    }


def plain(value: float | str) -> float | str | None:
    """A figure for JSON: four digits; None where there is none (nan)."""
    if isinstance(value, str):
        return value
    return None if math.isnan(value) else float(f"{float(value):.4g}")


def shown(value: float | str | None) -> str:
    """A figure for people."""
    if value is None or (not isinstance(value, str) and math.isnan(value)):
        return "none"
    return value if isinstance(value, str) else f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def render(result: dict[str, Any]) -> RenderableType:
    """A table for every group: what has a target, and all that is told of the group as a whole.

    The rest is in the report and in ``--json``.
    """
    from rich import box
    from rich.console import Group as Lines
    from rich.markup import escape
    from rich.table import Table

    lines: list[Any] = []
    met = total = 0
    for group in result["groups"].values():
        table = Table(
            "case",
            "figure",
            "target",
            "reached",
            "",
            title=group["title"],
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for case in group["cases"]:
            for name, value in case["figures"].items():
                word = target = ""
                if name in case["targets"]:
                    good, target = case["met"][name], case["targets"][name]
                    met, total = met + good, total + 1
                    word = "met" if good else "[bold red]missed[/]"
                elif case["seconds"] is not None:
                    continue
                table.add_row(escape(case["name"]), escape(name), target, escape(shown(value)), word)
        lines += [table] if table.row_count else [f"{group['title']}: nothing that has a target"]
        if "error" in group:
            lines.append(f"[bold red]{escape(group['error'])}[/]")
    lines.append(f"{met} of {total} targets met, {result['threads']} threads")
    return Lines(*lines)
