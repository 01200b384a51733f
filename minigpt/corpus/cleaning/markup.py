"""From marked-up text to the text: HTML tags and entities, and wiki markup.

What is cut out lies between a mark that opens and one that closes. Marks are found by scans that never go back, so a
thousand marks that nobody closes cost no more than a thousand letters.
"""

from __future__ import annotations

import html
import re

from minigpt.corpus.cleaning.step import until_stable

BLOCKS = (
    "address article aside blockquote body br caption center dd div dl dt fieldset figcaption figure footer form "
    "h1 h2 h3 h4 h5 h6 head header hr html li main nav ol p pre section table tbody tfoot thead title tr ul"
)
INLINE = (
    "a abbr acronym area audio b base basefont bdi bdo big button canvas cite code col colgroup data del details dfn em "
    "embed font i iframe img input ins kbd label legend link map mark meta meter noscript object optgroup option output "
    "param picture progress q rp rt ruby s samp script select small source span strike strong style sub summary sup svg "
    "td template textarea th time tt u var video wbr"
)
CELLS = frozenset({"td", "th", "option"})
NEW_LINES = frozenset(BLOCKS.split())
TAG = re.compile(rf"</?({'|'.join((BLOCKS + ' ' + INLINE).split())})\b[^<>]*+>", re.IGNORECASE)
DECLARATION = re.compile(r"<!doctype\b[^<>]*+>|<\?xml\b[^<>]*+>", re.IGNORECASE)
ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
HIDDEN = (
    (re.compile("<!--"), re.compile("-->")),
    *(
        (re.compile(rf"<{name}\b", re.IGNORECASE), re.compile(rf"</{name}[ \n]?>", re.IGNORECASE))
        for name in ("script", "style")
    ),
)


@until_stable
def strip_html(text: str) -> str:
    """Tags go, a block's tag leaves a line break, and entities such as &amp; become their characters.

    Only names that HTML has are tags, so a < b, <3 and <stdin> stay; comments, scripts and style sheets go with what is
    in them. May damage: text about HTML that shows tags or entities to be read.
    """
    if "<" in text:
        for opens, closes in HIDDEN:
            text = _cut(text, opens, closes)
        text = TAG.sub(_in_place_of_tag, DECLARATION.sub("", text))
    if "&" in text and ";" in text:
        text = ENTITY.sub(_character, text)
    return text


def _cut(text: str, opens: re.Pattern, closes: re.Pattern) -> str:
    """The text without what lies between the marks; a mark without its partner stays."""
    kept, at = [], 0
    while (first := opens.search(text, at)) and (last := closes.search(text, first.end())):
        kept.append(text[at : first.start()])
        at = last.end()
    return "".join([*kept, text[at:]]) if kept else text


def _in_place_of_tag(match: re.Match) -> str:
    name, text = match[1].lower(), match.string
    if name in NEW_LINES:
        beside_one = (
            match.start() == 0 or text[match.start() - 1] == "\n" or text[match.end() : match.end() + 1] in ("", "\n")
        )
        return "" if beside_one else "\n"
    return " " if name in CELLS else ""


def _character(match: re.Match) -> str:
    character = html.unescape(match[0])
    return match[0] if "\ufffd" in character else character  # a number that no character has


LINK = re.compile(r"\[\[:?[^\W\d_][^][\n]{0,200}\]\]")
TEMPLATE = re.compile(r"\{\{[^\W\d_][\w -]{0,60}\|[^{}]{0,300}[{}]")
BOLD = re.compile(r"'''[^'\n]{1,200}'''")
HEADING = re.compile(r"^={2,6} ?[^=\n]{1,200}={2,6}$", re.MULTILINE)
SIGNS = (("[[", LINK), ("{{", TEMPLATE), ("'''", BOLD), ("==", HEADING))
MARK = re.compile(r"\{\{|\}\}|\[\[(?!\[)|\]\]|^[ :]*+\{\||^ *+\|\}(?!\})", re.MULTILINE)
PARTNER = {"}}": "{{", "]]": "[[", "|}": "{|"}
DEEPEST = 12  # marks within marks; what is nested deeper stays as it is
GONE = "\0"  # stands where markup was; a line that was nothing else goes as a whole
EMPTIED = re.compile(r"^[ \t]*+\0[\0 \t]*+\n|\0", re.MULTILINE)
NOT_TEXT = re.compile(r" ?(?:file|image|media|category|[a-z]{2,3}|simple):", re.IGNORECASE)
WEB_LINK = re.compile(r"\[(?:https?:|ftp:|mailto:)?//[^][\s]*+ ?([^][\n]*+)\]")
QUOTED = re.compile(r"(?<!')('{2,3}|'{5})(?!')((?:[^'\n]|'(?!'))++)\1(?!')")
LIST_MARK = re.compile(r"^[*#:;]++[ \t]*+", re.MULTILINE)
SWITCH = re.compile(r"__[A-Z]{3,30}__")
WIKI_TAG = re.compile(
    r"</?(?:ref|nowiki|references|gallery|math|noinclude|onlyinclude|includeonly|poem|timeline|imagemap)\b[^<>]*+>",
    re.IGNORECASE,
)
WITHOUT_TEXT = tuple(
    (re.compile(rf"<{name}\b[^<>/]*+>", re.IGNORECASE), re.compile(rf"</{name}>", re.IGNORECASE))
    for name in ("ref", "gallery", "math", "timeline", "imagemap")
)


@until_stable
def strip_wiki(text: str) -> str:
    """Wiki markup to the text that a reader sees: links to their labels; templates, tables, footnotes and pictures go.

    Only where there are signs of it: a [[link]], a {{template}}, '''bold''' words or a == heading ==. [Stage directions]
    have one bracket and stay. May damage: program code with {{ or [[; a formula or a table that said something.
    """
    if not any(sign in text and pattern.search(text) for sign, pattern in SIGNS):
        return text
    if text.lstrip()[:9].lower() == "#redirect":
        return ""
    for opens, closes in WITHOUT_TEXT:
        text = _cut(text, opens, closes)
    text = _unmarked(WIKI_TAG.sub("", text))
    text = WEB_LINK.sub(r"\1", text) if "//" in text else text
    text = QUOTED.sub(r"\2", LIST_MARK.sub("", SWITCH.sub("", text)))
    return HEADING.sub(lambda match: match[0].strip("= "), text)


def _unmarked(text: str) -> str:
    """Templates and tables cut out and links replaced by their labels, from the inside out, in one pass."""
    parts: list[list[str]] = [[]]  # what has been read, for each mark that is open; the first is the text itself
    opened: list[str] = []
    at = 0
    for match in MARK.finditer(text):
        mark = match[0].strip(" :")
        parts[-1].append(text[at : match.start()])
        at = match.end()
        if mark not in PARTNER and len(opened) < DEEPEST:
            opened.append(match[0])
            parts.append([])
        elif PARTNER.get(mark) in [other.strip(" :") for other in opened]:
            while True:
                other, inside = opened.pop(), "".join(parts.pop())
                if other.strip(" :") == PARTNER[mark]:
                    parts[-1].append(_label(inside) if mark == "]]" else GONE)
                    break
                parts[-1].append(other + inside)  # it was opened inside and never closed
        else:
            parts[-1].append(match[0])
    parts[-1].append(text[at:])
    while opened:
        other, inside = opened.pop(), "".join(parts.pop())
        parts[-1].append(other + inside)
    return EMPTIED.sub("", "".join(parts[0]))


def _label(link: str) -> str:
    if NOT_TEXT.match(link):
        return GONE
    target, _, label = link.rpartition("|")
    return (label or target).strip(": ")
