"""Reading long JSON lists entry by entry, in memory that does not grow with the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO

_BLOCK = 1 << 18
_SPACE = " \t\r\n"


class JsonList:
    """The entries of a JSON list in a text stream, from the character after its ``[`` on.

    >>> list(JsonList(io.StringIO('1, [2, 3]], "more": 4}')))
    [1, [2, 3]]

    rest(): the text after the closing ``]``, once the entries are read. Raises ``ValueError`` for a list cut short.
    """

    def __init__(self, stream: IO[str], head: str = ""):
        self._stream, self._text, self._place = stream, head, 0

    def __iter__(self) -> Iterator:
        decoder, first = json.JSONDecoder(), True
        while (sign := self._next_sign()) != "]":
            if not first:
                if sign != ",":
                    raise ValueError("the list is cut short")
                self._place += 1
                self._next_sign()
            entry, self._place = self._decode(decoder)
            first = False
            yield entry
        self._place += 1

    def rest(self) -> str:
        """The text after the list."""
        return self._text[self._place :] + self._stream.read()

    def _decode(self, decoder: json.JSONDecoder) -> tuple:
        size = _BLOCK
        while True:
            try:
                entry, end = decoder.raw_decode(self._text, self._place)
                if end < len(self._text):  # a number that ends with the text may go on behind it
                    return entry, end
            except ValueError:
                pass
            self._read(size)
            size *= 2  # an entry larger than a block is not decoded anew for every block

    def _next_sign(self) -> str:
        """The next character that is not white space; it is not taken."""
        while True:
            while self._place < len(self._text):
                if self._text[self._place] not in _SPACE:
                    return self._text[self._place]
                self._place += 1
            self._read(_BLOCK)

    def _read(self, size: int) -> None:
        more = self._stream.read(size)
        if not more:
            raise ValueError("the list is cut short")
        self._text, self._place = self._text[self._place :] + more, 0


def list_at(stream: IO[str], key: str) -> tuple[dict, JsonList]:
    """What stands before the list ``key`` of a JSON object, and that list.

    Raises ``ValueError`` when there is no such key or the text is not JSON.
    """
    text, mark = "", f'"{key}"'
    while True:
        more = stream.read(_BLOCK)
        text += more
        place = text.find(mark)
        bracket = text.find("[", place) if place >= 0 else -1
        if bracket >= 0:
            break
        if not more:
            raise ValueError(f"there is no list {key!r} in it")
    if text[place + len(mark) : bracket].strip() != ":":
        raise ValueError(f"{key!r} is not a list")
    before = text[:place].rstrip().rstrip(",")
    return json.loads(before + "}"), JsonList(stream, text[bracket + 1 :])


def top_list(stream: IO[str]) -> JsonList:
    """The list that a JSON text consists of; raises ``ValueError`` when it does not begin as a list."""
    text = stream.read(_BLOCK).lstrip()
    if not text.startswith("["):
        raise ValueError("it does not begin as a list")
    return JsonList(stream, text[1:])
