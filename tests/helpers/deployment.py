"""The command lines that the files in examples/deployment/ hold."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOYMENT = ROOT / "examples" / "deployment"


def documents(path: Path) -> list[dict[str, Any]]:
    """All of a YAML file."""
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


def compose() -> dict[str, Any]:
    (whole,) = documents(DEPLOYMENT / "compose.yaml")
    return whole


def manifests() -> list[dict[str, Any]]:
    """Everything in kubernetes/ but what only kustomize reads."""
    paths = sorted((DEPLOYMENT / "kubernetes").glob("*.yaml"))
    return [
        document
        for path in paths
        if path.name != "kustomization.yaml"
        for document in documents(path)
    ]


def manifest(kind: str, name: str = "moderntensor") -> dict[str, Any]:
    (found,) = (
        each for each in manifests() if each["kind"] == kind and each["metadata"]["name"] == name
    )
    return found


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, the rest) of a Dockerfile, continued lines joined."""
    lines = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (t.partition(" ") for t in text.split("\n"))]


def unit(path: Path) -> dict[str, list[str]]:
    """Settings of a systemd unit; a setting may stand many times."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            found.setdefault(key, []).append(value.strip())
    return found


def _after_command(text: str) -> list[list[str]]:
    """Arguments of each call of the command in a shell line."""
    parts = re.split(r"\|\||&&|;", text)
    words = [shlex.split(part) for part in parts]
    return [each[1:] for each in words if each and Path(each[0]).name == "moderntensor"]


def commands() -> Iterator[tuple[str, list[str]]]:
    """(where it stands, the arguments of `moderntensor`) of every call."""
    for word, rest in instructions(DEPLOYMENT / "Dockerfile"):
        if word == "CMD":
            yield "Dockerfile", yaml.safe_load(rest)
    for name, service in compose()["services"].items():
        if service.get("image") != "moderntensor":
            continue
        command = service["command"]
        if "entrypoint" in service:
            for found in _after_command(command[0]):
                yield f"compose {name}", found
        else:
            yield f"compose {name}", shlex.split(command)
    for container in manifest("StatefulSet")["spec"]["template"]["spec"]["containers"]:
        yield "kubernetes", container["args"]
    for path in sorted((DEPLOYMENT / "systemd").iterdir()):
        for line in unit(path)["ExecStart"]:
            if line:
                (found,) = _after_command(line)
                yield path.name, found
