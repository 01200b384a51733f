"""Lines that belong to a page or an edition and not to its text: licences, navigation, cookie notices, copyright."""

from __future__ import annotations

import re

LONGEST_LINE = 300  # characters; a longer one holds more than boilerplate
LONGEST_LICENCE = 3000  # characters of one paragraph
STARTS = re.compile(r"^\*{3} ?START OF (?:THE|THIS) [^\n]*+\n?", re.MULTILINE)
ENDS = re.compile(r"^\*{3} ?END OF (?:THE|THIS) ", re.MULTILINE)

COPYRIGHT = r"\W{0,6}(?:copyright\b|©|\(c\)).{0,60}\b(?:1[5-9]|20)\d\d\b"
TERMS = (
    r".*\b(?:privacy policy|terms (?:of|and) (?:use|service|conditions))\b"
    r".{0,60}\b(?:privacy|terms|contact|cookies|sitemap)\b"
)
SITES = r"(?:facebook|twitter|pinterest|linkedin|instagram|reddit|whatsapp|e-?mail|x)"
SHARE = (
    r"\W{0,4}(?:share|follow us|like us|tweet|print)(?: this| page| post| article| on| via)*+"
    rf"(?:[ :|,/]{{1,3}}(?:on |and |via )?{SITES})+\W{{0,4}}$"
)
RULES = tuple(  # what the line must hold, in lower case, to be looked at; what it then must match from its beginning
    (sign, re.compile(pattern, re.IGNORECASE))
    for sign, pattern in (
        ("copyright", COPYRIGHT),
        ("©", COPYRIGHT),
        ("(c)", COPYRIGHT),
        ("rights reserved", r".*\ball rights reserved\b"),
        ("cookie", r".*\b(?:we|site|website|page|service)\b.{0,30}\buses? (?:\w+ ){0,3}cookies\b"),
        ("cookie", r".*\b(?:accept|agree to) our (?:use of cookies|cookie)\b"),
        ("cookie", r".*\b(?:accept|reject|allow|manage) (?:all |necessary )?cookies\b"),
        ("cookie", r".*\bcookies? (?:policy|settings|preferences|notice|consent)\b"),
        ("privacy policy", TERMS),
        ("terms of", TERMS),
        ("terms and", TERMS),
        ("posted ", r"\W{0,4}posted (?:on|in|by)\b.{0,80}$"),
        ("updated", r"\W{0,4}last (?:updated|modified)\b.{0,40}$"),
        ("leave a", r"\W{0,4}leave a (?:comment|reply)\W{0,4}$"),
        ("comment", r"\W{0,4}(?:log ?in|sign in|register)\b.{0,30}\bto (?:post|leave|view|comment)\b.{0,20}$"),
        ("advertisement", r"\W{0,4}advertisements?\W{0,4}$"),
        ("loading", r"\W{0,4}(?:page )?loading\W{0,4}$"),
        ("this page", r"\W{0,4}(?:print|e-?mail|bookmark|edit|share) this page\W{0,4}$"),
        ("newsletter", r"\W{0,4}(?:subscribe|sign up|join)\b.{0,60}\bnewsletter\b"),
        ("mailing list", r"\W{0,4}(?:subscribe|sign up|join)\b.{0,60}\bmailing list\b"),
        ("click here", r"\W{0,4}click here (?:to|for)\b.{0,80}$"),
        ("javascript", r".*\b(?:enable|turn on|requires?) javascript\b"),
        ("skip to", r"\W{0,4}skip to (?:main |the )?(?:content|navigation|menu)\W{0,4}$"),
        ("back to top", r"\W{0,4}back to top\W{0,4}$"),
        ("read more", r"\W{0,4}(?:\.\.\. ?)?read more\W{0,4}$"),
        ("facebook", SHARE),
        ("twitter", SHARE),
        ("powered by", r"\W{0,4}(?:proudly )?powered by (?:wordpress|blogger|drupal|joomla|mediawiki|phpbb)\b"),
    )
)
BETWEEN_ITEMS = ("|", "»", "›", "·", "•", " > ")
SPLIT_ITEMS = re.compile(r"[|»›·•>]")
KNOWN_ITEMS = (
    "home,about,about us,contact,contact us,login,log in,sign in,sign up,register,menu,search,next,previous,prev,back,"
    "previous page,next page,faq,help,support,blog,news,shop,store,cart,sitemap,site map,privacy,terms,archive,archives,"
    "categories,subscribe,products,services,careers,jobs,press,forum,forums,gallery,events,downloads,docs,my account,"
    "account,documentation,privacy policy,terms of use,terms of service,imprint,rss,advertise,feedback,top,index,contents,up"
)
ITEMS = frozenset(KNOWN_ITEMS.split(","))
LICENCES = (
    "permission is hereby granted, free of charge",
    "this permission notice shall be included",
    'software is provided "as is"',
    "redistribution and use in source and binary forms",
    "redistributions of source code must retain",
    "licensed under the apache license",
    "gnu general public license",
    "creative commons attribution",
    "project gutenberg",
    "this ebook is for the use of anyone",
    "this electronic version of the complete works",
)


def strip_boilerplate(text: str) -> str:
    """Lines of a page's frame and paragraphs of licences go, and what lies outside *** START OF and END OF marks.

    A line goes when all of it is of a known kind: copyright, cookies, navigation, sharing, newsletters. May damage: a
    text about such notices that quotes one on a line of its own, or a licence.
    """
    if "***" in text:
        starts = [match.end() for match in STARTS.finditer(text)]
        text = text[starts[-1] :] if starts else text
        end = ENDS.search(text)
        text = text[: end.start()] if end else text
    lower = text.lower()
    if any(phrase in lower for phrase in LICENCES):
        text = "\n\n".join(part for part in text.split("\n\n") if not _is_licence(part))
        lower = text.lower()
    rules = [rule for rule in RULES if rule[0] in lower]
    marks = [mark for mark in BETWEEN_ITEMS if mark in lower]
    if not rules and not marks:
        return text
    lines = text.split("\n")
    kept = [line for line in lines if len(line) > LONGEST_LINE or not _is_frame(line, rules, marks)]
    return text if len(kept) == len(lines) else "\n".join(kept)


def _is_licence(paragraph: str) -> bool:
    lower = paragraph.lower()
    return len(paragraph) <= LONGEST_LICENCE and any(phrase in lower for phrase in LICENCES)


def _is_frame(line: str, rules: list[tuple[str, re.Pattern]], marks: list[str]) -> bool:
    lower = line.lower()
    if any(sign in lower and pattern.match(line) for sign, pattern in rules):
        return True
    if not any(mark in lower for mark in marks):
        return False
    items = [item.strip() for item in SPLIT_ITEMS.split(lower) if item.strip()]
    known = sum(item in ITEMS for item in items)
    return len(items) >= 2 and (2 * known >= len(items) or (len(items) >= 3 and items[0] == "home"))
