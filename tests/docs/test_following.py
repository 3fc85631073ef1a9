"""That the harness of the documentation can fail: whatever is not so in a page is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.page_run import Following
from helpers.pages import PageError, read_page


def follow(tmp_path: Path, text: str) -> Following:
    """Follow a page of this text to its end."""
    path = tmp_path / "page.md"
    path.write_text(text, encoding="utf-8")
    page = read_page(path)
    with Following(tmp_path / "run") as following:
        following.follow(page)
    return following


def fenced(kind: str, text: str, *marks: str) -> str:
    above = "".join(f"<!-- docs: {mark} -->\n" for mark in marks)
    return f"{above}```{kind}\n{text}\n```\n\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (fenced("", "x"), "unknown kind"),
        (fenced("fish", "x"), "unknown kind"),
        (fenced("text", "x"), "text is output"),
        (fenced("sh", "true", "not run"), "no reason"),
        (fenced("sh", "true", "not run, no"), "no reason"),
        (fenced("sh", "true", "never"), "unknown mark"),
        (fenced("sh", "true", "output"), "output is text"),
        (fenced("sh", "true", "continues"), "only python"),
        ("<!-- docs: output -->\n\n" + fenced("text", "x"), "right above"),
        ("words <!-- docs: output -->\n", "line to itself"),
        ("```sh\ntrue\n", "without an end"),
    ],
)
def test_a_page_that_cannot_be_read(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(PageError, match=complaint):
        follow(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (fenced("sh", "echo one\nfalse\necho two"), r"page\.md:1: exit code 1"),
        (fenced("sh", "false | true"), "exit code 1"),
        (fenced("sh", 'echo "$MISSING"'), "unbound variable"),
        (fenced("sh", "true", "exit 3"), "exit code 0, not 3"),
        (fenced("python", "1 / 0"), "ZeroDivisionError"),
        (fenced("python", "import warnings; warnings.warn('old')"), "UserWarning: old"),
        (fenced("json", "{"), r"page\.md:1"),
        (fenced("toml", "a = "), r"page\.md:1"),
        (fenced("yaml", "a: ["), r"page\.md:1"),
        (fenced("python", "a = (", "file a.py"), r"page\.md:2"),
        (fenced("sh", "echo one") + fenced("text", "two", "output"), "but printed was"),
        (fenced("sh", "echo one; echo two") + fenced("text", "one", "output"), "but printed was"),
        (fenced("sh", "echo one; echo two") + fenced("text", "two", "output"), "but printed was"),
        (fenced("sh", "echo '{}'") + fenced("json", '{"a": 1}', "output"), "it has"),
        (fenced("sh", "echo '[1]'") + fenced("json", '["a"]', "output"), r"it\[\] is 1"),
        (fenced("console", "$ echo one\ntwo"), "but printed was"),
        (
            fenced("sh", "echo here", 'background, until "here"')
            + fenced("sh", "for i in {1..50000}; do :; done"),
            "ended too soon",
        ),
        (fenced("sh", "echo here", 'background, until "there"'), "never said"),
    ],
)
def test_a_page_that_is_not_so(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(PageError, match=complaint):
        follow(tmp_path, text)


def test_a_page_that_is_so(tmp_path: Path) -> None:
    """One terminal's directory and variables go from block to block; others are beside it."""
    following = follow(
        tmp_path,
        fenced("sh", "mkdir deep && cd deep\nNAME=somebody")
        + fenced("text", "written", "file notes.txt")
        + fenced("sh", 'cat notes.txt; echo "$NAME"; echo 12,345 blocks; echo left out; echo end')
        + fenced("text", "written\nsomebody\n9 blocks\n…\nend", "output")
        + fenced("sh", "echo on 30303; sleep 60", 'background, until "on 30303"')
        + fenced("python", "import os\nvalue = os.getcwd()")
        + "Some words between.\n\n"
        + fenced("python", "print(value.rsplit('/')[-1])", "continues")
        + fenced("text", "deep", "output")
        + fenced("sh", "rm -rf / --no-preserve-root", "not run, it would cost a machine")
        + fenced("sh", "exit 3", "exit 3")
        + '<!-- docs: stop "on 30303" -->\n\n'
        + fenced("sh", 'echo \'{"a": 1.5, "b": [{"c": "x"}, {"c": "y"}], "d": null}\'')
        + fenced("json", '{"a": 1, "b": [{"c": "z"}], "d": 4}', "output")
        + "1. In a list:\n\n"
        + "   ```sh\n   echo in a list\n   ```\n",
    )
    assert following.printed == "in a list"
    assert following.ports["30303"] != "30303"
    assert not following.running


def test_what_is_left_running_is_ended(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    # Said by the child, which has no trap any more: between fork and exec it would have lost the
    # signal.
    child = "sh -c 'echo here; exec sleep 60' &"
    text = f"trap 'echo so >\"{ended}\"; exit' TERM\n{child}\nwait"
    follow(tmp_path, fenced("sh", text, 'background, until "here"'))
    assert ended.read_text() == "so\n"


def test_who_leaves_processes_behind_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helpers.page_run.ENDING", 0.2)
    with pytest.raises(PageError, match="leaves processes behind"):
        follow(tmp_path, fenced("sh", "sleep 60 & disown"))
