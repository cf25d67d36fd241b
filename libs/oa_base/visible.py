"""Text from elsewhere in a form that is safe for a terminal or a log.

A terminal obeys what it is sent: a title may hold an order to clear the screen, a name one to turn the reading
direction round, and a character without width makes two names look like one. Such characters are shown as they are
written in a program: `\\x1b`, `\\u202e`. They are those of the Unicode categories Cc, Cf, Cs, Zl and Zp (control
characters, bidirectional and other formatting, half surrogates, separators of lines and paragraphs) and a few letters
and marks that have no width either.
"""

from __future__ import annotations

import json
import re
import unicodedata

LAYOUT = "\n\t"
"""The characters that a text of several lines needs."""
_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_WITHOUT_WIDTH = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_NOT_PLAIN = re.compile(r"[^ -~]")
_HALF_SURROGATE = re.compile("[\ud800-\udfff]")


def is_visible(character: str) -> bool:
    """Whether a terminal only shows this character."""
    return unicodedata.category(character) not in _CATEGORIES and character not in _WITHOUT_WIDTH


def visible(text: str, layout: str = "") -> str:
    """`text` with every invisible character made visible, except the characters of `layout`."""

    def shown(found: re.Match[str]) -> str:
        character = found[0]
        return character if character in layout or is_visible(character) else ascii(character)[1:-1]

    return _NOT_PLAIN.sub(shown, text)


def visible_json(document: str) -> str:
    """A JSON document with the same value that a terminal may have: JSON's own escapes for what is not visible.

    `document` has no line breaks outside of its strings.
    """

    def shown(found: re.Match[str]) -> str:
        character = found[0]
        return character if is_visible(character) else json.dumps(character)[1:-1]

    return _NOT_PLAIN.sub(shown, document)


def is_text(text: str) -> bool:
    """Whether it can be encoded as UTF-8. Python passes invalid bytes of an argument or a path as lone surrogates."""
    return _HALF_SURROGATE.search(text) is None


def storable(text: str) -> str:
    """The text without characters that no log takes: NUL, and halves of a character."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
