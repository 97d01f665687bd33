"""Removes inline markup of Markdown: links, images, HTML and mkdocs-material's marks become plain text.

Documents are untrusted, and Python's regular expressions search for a missing end anew from every beginning:
40 KB of ``![`` took seconds and 1 MB hours. Every end is therefore looked up in a list of places, which is made once,
and every part that several beginnings may share is read once.
"""

import re
from bisect import bisect_left
from collections.abc import Callable

HTML_TAGS = (
    "a|abbr|address|article|aside|audio|b|big|blockquote|body|br|button|center|cite|col|colgroup|dd|del|details|dfn|div|dl|dt|"
    "em|figcaption|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|label|li|link|main|mark|meta|nav|"
    "ol|option|p|picture|pre|s|samp|section|select|small|source|span|strike|strong|sub|summary|sup|svg|path|rect|circle|line|"
    "table|tbody|td|tfoot|th|thead|tr|u|ul|video|wbr"
)
BEGINNING = re.compile(r"[`<!\[\]\\:{]|^[ \t]*+[:-]", re.MULTILINE)
TICKS = re.compile(r"`+")
BADGE = re.compile(r"shields\.io|badge", re.IGNORECASE)
AUTO_LINK = re.compile(r"<(?:https?|mailto|ftp):", re.IGNORECASE)
LINE_BREAK = re.compile(r"<br\s*+/?>", re.IGNORECASE)
TAG = re.compile(rf"</?(?:{HTML_TAGS})(?=[\s/>])", re.IGNORECASE)
REMAINS = re.compile(r"\\?\]\((?:[a-z]++:/|\.{0,2}/|\#)[^()\s]*+\)", re.IGNORECASE)
"""The end of a link whose beginning was cut off."""
ICON = re.compile(r":(?:material|octicons|fontawesome|simple|twemoji)-[\w-]++:", re.IGNORECASE)
ATTRIBUTES = re.compile(r"\{:?\s*+[.\#][^{}\n]*+\}|\{:[^{}\n]*+\}")
SNIPPET = re.compile(r"^[ \t]*+-{1,3}8<-{1,3}[^\n]*+", re.MULTILINE)
DIRECTIVE = re.compile(r"^[ \t]*+:::[ \t]++[\w.]+[^\n]*(?:\n[ \t]+[^\n]+)*", re.MULTILINE)
BLANKS = re.compile(r"\s*")

Found = tuple[int, str]
"""Where a piece of markup ends, and the text in its place."""


def without_markup(text: str, clean: Callable[[str], str]) -> str:
    """Replace all markup of a text.

    Args:
        text: lines of Markdown that hold no code block. Code spans stay.
        clean: cleans the words of a link; it may call this function.
    """
    markup, kept, at = _Markup(text, clean), list[str](), 0
    begin = BEGINNING.search(text)
    while begin is not None:
        found = markup.at(begin.start())
        if found is None:
            begin = BEGINNING.search(text, begin.start() + 1)
            continue
        kept += (text[at : begin.start()], found[1])
        at = found[0]
        begin = BEGINNING.search(text, at)
    return "".join((*kept, text[at:])) if kept else text


class _Markup:
    """The markup of one text. Methods named for a piece take its first place and return where it ends, or -1."""

    def __init__(self, text: str, clean: Callable[[str], str]) -> None:
        self._text, self._clean = text, clean
        self._places: dict[str, list[int]] = {}
        self._tick_ends: dict[int, list[int]] = {}
        self._word_ends: dict[int, int] = {}
        self._tag_ends: dict[int, int] = {}
        self._target_ends: dict[int, int] = {}
        self._closings: dict[int, int] = {}

    def at(self, begin: int) -> Found | None:
        """The markup that begins at a place, if any."""
        match self._text[begin]:
            case "`":
                end = self._code(begin)
                return (end, self._text[begin:end]) if end > 0 else None
            case "<":
                return self._angle(begin)
            case "!":
                return self._image(begin)
            case "[":
                return self._cut(begin) or self._link(begin)
            case "\\":
                return self._cut(begin) or self._matched(REMAINS, begin)
            case "]":
                return self._matched(REMAINS, begin)
            case "{":
                return self._matched(ATTRIBUTES, begin)
            case ":":
                return self._matched(ICON, begin) or self._matched(DIRECTIVE, begin)
        return self._matched(SNIPPET, begin) or self._matched(DIRECTIVE, begin)

    def _matched(self, pattern: re.Pattern[str], begin: int) -> Found | None:
        found = pattern.match(self._text, begin)
        return (found.end(), "") if found is not None else None

    def _next(self, pattern: str, begin: int) -> int:
        """The first place of a pattern from ``begin``; the length of the text if there is none."""
        places = self._places.get(pattern)
        if places is None:
            places = self._places[pattern] = [found.start() for found in re.finditer(pattern, self._text)]
        at = bisect_left(places, begin)
        return places[at] if at < len(places) else len(self._text)

    def _is(self, char: str, at: int) -> bool:
        return self._text.startswith(char, at)

    def _after_blanks(self, begin: int) -> int:
        found = BLANKS.match(self._text, begin)
        assert found is not None
        return found.end()

    def _code(self, begin: int) -> int:
        """Ends with as many ticks as it begins with."""
        if not self._tick_ends:
            for ticks in TICKS.finditer(self._text):
                self._tick_ends.setdefault(len(ticks[0]), []).append(ticks.end())
        opened = self._next(r"(?<=`)(?!`)", begin + 1)
        ends = self._tick_ends.get(opened - begin, [])
        at = bisect_left(ends, opened + 1)
        return ends[at] if at < len(ends) else -1

    def _angle(self, begin: int) -> Found | None:
        """A comment, an address, a line break or a tag."""
        if self._is("<!--", begin):
            end = self._next("-->", begin + 4)
            return (end + 3, "") if end < len(self._text) else None
        if auto := AUTO_LINK.match(self._text, begin):
            end = self._next(r"[>\s]", auto.end())
            return (end + 1, self._text[begin + 1 : end]) if end > auto.end() and self._is(">", end) else None
        if line_break := LINE_BREAK.match(self._text, begin):
            return line_break.end(), "\n"
        tag = TAG.match(self._text, begin)
        end = self._tag_end(tag.end()) if tag is not None else -1
        return (end, "") if end > 0 else None

    def _tag_end(self, begin: int) -> int:
        """The end of a tag after its name; a ``>`` in quotes does not end it."""
        passed, at, end = list[int](), begin, -1
        while (stop := self._next("[<>\"']", at)) < len(self._text):
            if stop in self._tag_ends:
                end = self._tag_ends[stop]
                break
            passed.append(stop)
            char = self._text[stop]
            if char in "<>":
                end = stop + 1 if char == ">" else -1
                break
            at = self._next(char, stop + 1) + 1
        self._tag_ends.update(dict.fromkeys(passed, end))
        return end

    def _image(self, begin: int) -> Found | None:
        if not self._is("[", begin + 1):
            return None
        end = self._next(r"\]", begin + 2)
        picture = self._reference_or_target(end + 1)
        if picture < 0:
            return None
        is_badge = BADGE.search(self._text, end + 1, picture) is not None
        return picture, "" if is_badge else self._text[begin + 2 : end].strip()

    def _link(self, begin: int) -> Found | None:
        if begin and self._is("\\", begin - 1):
            return None
        end = self._words_end(begin + 1)
        target = self._reference_or_target(end + 1) if end > 0 else -1
        return (target, self._clean(self._text[begin + 1 : end]).strip()) if target > 0 else None

    def _words_end(self, begin: int) -> int:
        """The bracket that closes a link's words: it skips pairs of brackets and those after a backslash."""
        passed, at, end = list[int](), begin, -1
        while (stop := self._next(r"[\[\]\\]", at)) < len(self._text):
            if stop in self._word_ends:
                end = self._word_ends[stop]
                break
            passed.append(stop)
            if self._is("\\", stop):
                at = stop + 2
                continue
            closing = self._next(r"[\[\]]", stop + 1)
            if self._is("]", stop) or not self._is("]", closing):
                end = stop if self._is("]", stop) else -1
                break
            at = closing + 1
        self._word_ends.update(dict.fromkeys(passed, end))
        return end

    def _reference_or_target(self, begin: int) -> int:
        if self._is("[", begin):
            end = self._next(r"[\]\n]", begin + 1)
            return end + 1 if self._is("]", end) else -1
        return self._target(begin) if self._is("(", begin) else -1

    def _target(self, begin: int) -> int:
        """``(address)``, ``(<address>)`` or either with a title in quotes."""
        if begin not in self._target_ends:
            self._target_ends[begin] = self._read_target(begin)
        return self._target_ends[begin]

    def _read_target(self, begin: int) -> int:
        at = self._after_blanks(begin + 1)
        if self._is("<", at):
            angle = self._next(r"[>\n]", at + 1)
            end = self._closing(angle + 1) if self._is(">", angle) else -1
            if end > 0:
                return end
        end = self._closing(self._address_end(at))
        return self._closing(begin + 1) if end < 0 and at > begin + 1 else end

    def _address_end(self, begin: int) -> int:
        """An address may hold pairs of parentheses."""
        at = begin
        while self._is("(", stop := self._next(r"[()\s]", at)):
            closing = self._next(r"[()\s]", stop + 1)
            if not self._is(")", closing):
                return stop
            at = closing + 1
        return stop

    def _closing(self, begin: int) -> int:
        """An optional title after a blank, then ``)``."""
        if begin not in self._closings:
            self._closings[begin] = self._read_closing(begin)
        return self._closings[begin]

    def _read_closing(self, begin: int) -> int:
        at = self._after_blanks(begin)
        quote = self._text[at : at + 1]
        if at > begin and quote and quote in "\"'":
            at = self._after_blanks(self._next(quote, at + 1) + 1)
        return at + 1 if self._is(")", at) else -1

    def _cut(self, begin: int) -> Found | None:
        """A link that the end of a line cuts off; its brackets may be escaped, and its words may hold images."""
        text = self._text
        before, first = text[begin - 1 : begin], begin + self._is("\\", begin)
        if not self._is("[", first) or before == "\\" or before.isalnum() or before == "_":
            return None
        at = first + 1
        while self._is("[", stop := self._next(r"[\[\]\\\n]", at)):
            closing = self._next(r"[\[\]\n]", stop + 1)
            is_image = stop > at and self._is("!", stop - 1) and self._is("](", closing)
            at = self._target(closing + 1) if is_image else -1
            if at < 0:
                return None
        target = stop + self._is("\\", stop)
        end = self._next(r"[()\s]", target + 2)
        if not self._is("](", target) or not (end == len(text) or self._is("\n", end)):
            return None
        return end, self._clean(text[first + 1 : stop]).strip()
