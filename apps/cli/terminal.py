"""A run's output made safe for a terminal: colors stay, and whatever could control the terminal is made visible."""

from __future__ import annotations

import codecs
import re

from oa_base.visible import LAYOUT, visible

RESET = "\x1b[0m"
_COLOR = r"\x1b\[[0-9;:]{0,64}m"
_SPECIAL = re.compile(rf"(?P<color>{_COLOR})|(?P<line>\r+\n?)|[^ -~\n\t]")
# The beginning of a color sequence or of a line ending, which the next piece may complete.
_UNFINISHED = re.compile(r"(?:\r+|\x1b(?:\[[0-9;:]{0,64})?)\Z")
_RESETS = frozenset({RESET, "\x1b[m"})


class TerminalText:
    """One stream of a run, fed in pieces. The text does not depend on where the pieces are cut.

    A carriage return ends a line, so that nothing shown is overwritten. Bytes that are not UTF-8 become U+FFFD.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._coloured = False

    def feed(self, data: bytes) -> str:
        """Return the text that can be shown after one more piece."""
        text = self._held + self._decoder.decode(data)
        unfinished = _UNFINISHED.search(text)
        self._held = unfinished[0] if unfinished else ""
        if self._held.startswith("\r"):
            self._held = "\r"
        return self._shown(text[: unfinished.start()] if unfinished else text)

    def settle(self) -> str:
        """Return the text that was held back, and reset the colors, because something else is about to be shown."""
        held, self._held = self._held, ""
        text = self._shown(held)
        if self._coloured:
            self._coloured = False
            text += RESET
        return text

    def _shown(self, text: str) -> str:
        return _SPECIAL.sub(self._show, text)

    def _show(self, found: re.Match[str]) -> str:
        if found["color"]:
            self._coloured = found[0] not in _RESETS
            return found[0]
        return "\n" if found["line"] else visible(found[0], LAYOUT)


def uncoloured(text: str) -> str:
    """Return the text without its colors."""
    return re.sub(_COLOR, "", text)
