"""The default install holds nothing under the GPL: every package that it pulls says so itself."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution, requires

from packaging.requirements import Requirement

KNOWN = {  # packages whose own metadata name no licence; read in their licence files
    "sphn": "Apache-2.0",
    "tojyutping": "BSD-2-Clause",
}


def closure(root: str) -> set[str]:
    """Names of all packages that ``root`` requires here, without extras."""
    found: set[str] = set()
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue  # for another machine
        found.add(name)
        wanted = (Requirement(line) for line in lines)
        waiting += [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def licence(name: str) -> str:
    meta = distribution(name).metadata
    stated = [meta["License-Expression"] or "", (meta["License"] or "")[:200]]
    stated += [line for line in meta.get_all("Classifier") or [] if line.startswith("License")]
    return KNOWN.get(name) or " ".join(filter(None, stated))


def test_every_package_of_the_default_install_names_a_licence_that_is_not_the_gpl():
    names = closure("stepaudio")
    assert {"numpy", "onnxruntime", "openai"} <= names
    said = {name: licence(name) for name in names}
    assert not [name for name, text in said.items() if not text]
    gpl = re.compile(r"(?<![A-Za-z])A?GPL|GNU (?:Affero )?General Public", re.I)
    # "MIT OR GPL" leaves the choice.
    bad = {n: t for n, t in said.items() if gpl.search(t) and not re.search(r"\bOR\b|MIT|BSD|Apache", t)}
    assert not bad
