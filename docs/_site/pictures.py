"""The pictures of docs/images/ that are drawn: boxes, arrows, words, as SVG.

``python docs/_site/pictures.py`` writes them; a test holds the files to it. They bring their own
background and follow the theme of who looks, so that they can be read in light and in dark.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

IMAGES = Path(__file__).resolve().parent.parent / "images"

_STYLE = """
.ground{fill:#fbfbfa} .box{fill:#ffffff;stroke:#5b6b73;stroke-width:1.5} .band{fill:#e8eef0}
.strong{fill:#d6ebe7;stroke:#11766b;stroke-width:1.5} text{fill:#1d2529;font:14px sans-serif}
.small{font-size:12px;fill:#48555b} .tip{fill:#5b6b73}
.line{stroke:#5b6b73;stroke-width:1.5;fill:none}
@media (prefers-color-scheme: dark){
.ground{fill:#1a1f23} .box{fill:#262d33;stroke:#93a4ad} .band{fill:#20282d}
.strong{fill:#123d38;stroke:#5cc3b5} text{fill:#e6ecef} .small{fill:#b3c0c6}
.line{stroke:#93a4ad} .tip{fill:#93a4ad}}
"""


class Picture:
    """A drawing of a fixed size; `title` is what it says to who cannot see it."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-labelledby="title">',
            f'<title id="title">{escape(title)}</title>',
            f"<style>{_STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
            'markerHeight="8" orient="auto-start-reverse"><path class="tip" d="M0 0 8 4 0 8z"/>'
            "</marker></defs>",
            f'<rect class="ground" width="{width}" height="{height}" rx="8"/>',
        ]

    def box(self, x: int, y: int, w: int, h: int, *lines: str, kind: str = "box") -> None:
        """A box with centred lines, the first of them larger."""
        self.parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{w}" height="{h}" rx="5"/>')
        top = y + h / 2 - 9 * (len(lines) - 1) + 5
        for i, line in enumerate(lines):
            self.text(x + w // 2, round(top + 18 * i), line, small=i > 0)

    def text(
        self, x: int, y: int, text: str, *, small: bool = False, anchor: str = "middle"
    ) -> None:
        look = ' class="small"' if small else ""
        self.parts.append(
            f'<text{look} x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def arrow(self, *points: tuple[int, int], both: bool = False) -> None:
        """A line through these points with a tip at its end, or at both."""
        path = "M" + " ".join(f"{x} {y}" for x, y in points)
        start = ' marker-start="url(#tip)"' if both else ""
        self.parts.append(f'<path class="line" d="{path}" marker-end="url(#tip)"{start}/>')

    def __str__(self) -> str:
        return "\n".join([*self.parts, "</svg>"]) + "\n"


def tutorial() -> Picture:
    picture = Picture(640, 250, "Three nodes, each connected to the two others, and you")
    picture.box(30, 150, 150, 70, "node 0", "peers 30303", "HTTP 8645", kind="strong")
    picture.box(245, 150, 150, 70, "node 1", "peers 30304", "HTTP 8646", kind="strong")
    picture.box(460, 150, 150, 70, "node 2", "peers 30305", "HTTP 8647", kind="strong")
    picture.arrow((182, 185), (243, 185), both=True)
    picture.arrow((397, 185), (458, 185), both=True)
    picture.arrow((105, 222), (105, 238), (535, 238), (535, 222), both=True)
    picture.box(245, 20, 150, 50, "you", "tx send, account show")
    picture.arrow((260, 72), (120, 148))
    picture.text(120, 105, "a transaction", small=True)
    picture.arrow((520, 148), (380, 72))
    picture.text(530, 105, "an account, proved", small=True)
    return picture


def layers() -> Picture:
    picture = Picture(720, 330, "What a byte meets on its way through a node")
    rows = [
        ("connection", "one socket: reading, sending, backpressure"),
        ("channel", "Noise handshake, encrypted records; or nothing"),
        ("framing", "length, type, cap: frames"),
        ("peer", "requests and replies, rates, limits"),
        ("node", "who is connected; dispatch by type"),
    ]
    for i, (name, about) in enumerate(rows):
        y = 15 + 40 * i
        picture.box(40, y, 130, 30, name)
        picture.text(185, y + 20, about, small=True, anchor="start")
        if i:
            picture.arrow((105, y - 10), (105, y - 1))
    for i, (name, about) in enumerate(
        [("serving", "answers GET_…"), ("gossip", "news"), ("sync", "headers, bodies, state")]
    ):
        x = 40 + 160 * i
        picture.box(x, 225, 145, 40, name, about, kind="strong")
        picture.arrow((105, 206), (105, 215), (x + 72, 215), (x + 72, 224))
        picture.arrow((x + 72, 266), (x + 72, 284))
    picture.box(40, 285, 465, 32, "blockchain: rules, execution, tables")
    picture.box(555, 285, 130, 32, "storage: LMDB")
    picture.arrow((506, 301), (554, 301), both=True)
    picture.text(560, 30, "bytes from a peer", small=True)
    picture.arrow((500, 26), (470, 26))
    return picture


def sync() -> Picture:
    picture = Picture(720, 250, "A sync: headers, bodies and execution, all at once")
    stages = [
        ("headers", "ranges from all peers,", "pinned to a skeleton"),
        ("bodies", "a window over peers,", "each checked by its root"),
        ("apply", "execution, one commit", "for each batch"),
    ]
    for i, lines in enumerate(stages):
        x = 20 + 240 * i
        picture.box(x, 95, 190, 74, *lines, kind="strong")
        if i:
            picture.arrow((x - 49, 132), (x - 1, 132))
            picture.text(x - 25, 120, "queue", small=True)
    for i, x in enumerate((40, 115, 190, 265, 340)):
        picture.box(x, 20, 62, 28, f"peer {i + 1}")
        picture.arrow((x + 31, 49), (115 if i < 2 else 355, 94))
    picture.box(500, 205, 190, 32, "store")
    picture.arrow((595, 170), (595, 204))
    picture.box(20, 205, 420, 32, "worker threads: signatures, senders, hashes")
    picture.arrow((115, 170), (115, 204), both=True)
    picture.arrow((355, 170), (355, 204), both=True)
    return picture


def floors() -> Picture:
    names = (
        ("cli", "the command"),
        ("simulation", "virtual time, a network in memory"),
        ("api", "HTTP"),
        ("metrics", "numbers for Prometheus"),
        ("node", "all parts wired together"),
        ("network", "peers, gossip, sync"),
        ("client", "asks a node over HTTP"),
        ("blockchain", "what travels, and its rules"),
        ("storage", "ordered bytes"),
        ("wire", "declared layouts"),
        ("backend", "compiled or pure engines"),
        ("errors", "every exception"),
    )
    picture = Picture(560, 30 + 34 * len(names), "Imports run downward only")
    for i, (name, about) in enumerate(names):
        y = 15 + 34 * i
        picture.box(60, y, 150, 27, name, kind="strong" if name == "node" else "box")
        picture.text(225, y + 18, about, small=True, anchor="start")
    picture.arrow((35, 20), (35, 12 + 34 * len(names)))
    return picture


PICTURES = {"tutorial": tutorial, "layers": layers, "sync": sync, "floors": floors}


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (IMAGES / f"{name}.svg").write_text(str(draw()), encoding="utf-8")
