"""The table of settings of docs/reference/settings.md, from moderntensor/config.py.

``python docs/_site/settings.py`` writes it; a test holds the page to it.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from moderntensor import _version, config

BEGIN = "<!-- table: written by python docs/_site/settings.py -->"
END = "<!-- end of table -->"
PAGE = Path(__file__).resolve().parent.parent / "reference" / "settings.md"

_SECTION = re.compile(r"    # --- (.*?) -+$")
_COMMENT = re.compile(r"    # (.*)$")
_FIELD = re.compile(r"    (\w+): [^=]*= (.*?)(?:  # (.*))?$")
_MIB = 1024 * 1024


def table() -> str:
    """Settings by section: name, type, default, and what the source says of them."""
    source = Path(config.__file__).read_text(encoding="utf-8")
    body = source[source.index("class NodeConfig") : source.index("    def __post_init__")]
    known = {field.name: field for field in fields(config.NodeConfig)}
    lines: list[str] = []
    above: list[str] = []
    for line in body.splitlines():
        if section := _SECTION.match(line):
            lines += ["", f"### {section[1].capitalize()}", "", "| Setting | Type | Default | |"]
            lines += ["|---|---|---|---|"]
            above = []
        elif comment := _COMMENT.match(line):
            above.append(comment[1])
        elif (found := _FIELD.match(line)) and found[1] in known:
            field = known.pop(found[1])
            beside = re.sub(r"^noqa: \w+ *", "", found[3] or "").strip().strip("()")
            words = " ".join([*above, beside]).replace("|", "\\|").strip()
            default = _shown(field.default)
            kind = str(field.type).replace(" | ", " or ")
            lines.append(f"| `{field.name}` | {kind} | {default} | {_sentence(words)} |")
            above = []
        else:
            above = []
    if known:
        raise ValueError(f"not found in the source: {', '.join(known)}")
    return "\n".join(lines).strip()


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f'`"{value.replace(_version.VERSION, "VERSION")}"`'
    if isinstance(value, int) and not isinstance(value, bool) and value and value % _MIB == 0:
        return f"{value // _MIB:,} MiB"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:,}"
    return f"`{value}`"


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def page(text: str) -> str:
    """The page with its table made anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
