"""A long line on a terminal never goes on where a line of ours begins, and no id or hash is broken."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from apps.cli.output import Output
from apps.cli.terminal import uncoloured
from apps.cli.tests.hostile import screens
from apps.cli.wrapping import wrapped

RUN = "run_01JD8V0000000000000000000A"
HASH = "0123456789abcdef" * 4
BLANK = "\u2800"
"""A character that looks like a blank, and is none."""
WIDTHS = [24, 40, 60, 80]
TITLES = [
    "a title " * 30,
    "x" * 300,
    f"{'x' * 60} succeeded {RUN} " * 4,
    BLANK.join(["x" * 9, "succeeded"] * 30),
    "你" * 99,
]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("title", TITLES, ids=range(len(TITLES)))
def test_what_goes_on_is_indented(title: str, width: int) -> None:
    lines = wrapped(f"{RUN} · {title}", width).split("\n")
    assert lines[0].startswith("run_")
    assert len(lines) > 1
    assert all(line.startswith("  ") for line in lines[1:])
    assert all(cell_len(line) <= width or RUN in line for line in lines)
    assert "".join("".join(lines).split()) == "".join(f"{RUN} · {title}".split())


@pytest.mark.parametrize("width", [10, *WIDTHS])
@pytest.mark.parametrize("whole", [RUN, HASH, f"12:{HASH}", f"({RUN}),"])
def test_an_id_and_a_hash_are_never_broken(whole: str, width: int) -> None:
    assert whole in wrapped(f"chain head  {whole} and more", width, indent=12)


def test_what_fits_stays_as_it_is() -> None:
    assert wrapped("  two   blanks ", 15) == "  two   blanks "
    assert wrapped("", 1) == ""
    assert wrapped("chain head  " + HASH, 60, indent=12) == f"chain head\n  {HASH}"
    assert (
        wrapped("title       a b c d e f g h i j k l", 32, indent=12)
        == "title       a b c d e f g h i j\n" + " " * 12 + "k l"
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("title", TITLES, ids=range(len(TITLES)))
def test_on_a_terminal_long_text_is_wrapped_below_itself(
    title: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = screens(monkeypatch, terminal=True)
    monkeypatch.setenv("COLUMNS", str(width))
    output = Output()
    output.note(title)
    output.error("not_found", title, {})
    output.pairs([["title", title], ["chain head", HASH]])
    output.say(title)
    said, told = (uncoloured(each.written.decode()).splitlines() for each in (out, err))
    begin = [line for line in (*said, *told) if not line.startswith("  ")]
    assert begin[0].startswith("title")
    assert begin[1].startswith("chain head")
    assert len(begin) == 5, begin
    assert HASH in "\n".join(said)


def test_a_value_to_copy_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = screens(monkeypatch, terminal=True)
    monkeypatch.setenv("COLUMNS", "24")
    Output().say("oak_" + "a" * 60, whole=True)
    assert out.written.decode() == "oak_" + "a" * 60 + "\n"
