"""Where two texts differ, to the character, and how far a change may be moved without the texts becoming others.

This module knows nothing of why they differ.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

Change = tuple[int, int, int, int]  # a[start:end] of one text is b[start:end] of another
Span = tuple[int, int]
PIECE = re.compile(r"\w+|\s|[^\w\s]")


def differences(a: str, b: str) -> list[Change]:
    """Where two texts differ: (start, end, start, end), a[start:end] of the first is b[start:end] in the second.

    Lines are compared first, then the words and signs of those that differ.
    """
    if a == b:
        return []
    found, lines_a, lines_b = [], a.splitlines(keepends=True), b.splitlines(keepends=True)
    for i, i_end, j, j_end in _changes(lines_a, lines_b):
        at_a, at_b = sum(map(len, lines_a[:i])), sum(map(len, lines_b[:j]))
        pieces_a, pieces_b = PIECE.findall("".join(lines_a[i:i_end])), PIECE.findall("".join(lines_b[j:j_end]))
        for k, k_end, m, m_end in _changes(pieces_a, pieces_b):
            start_a, start_b = (
                at + sum(map(len, pieces[:n])) for at, pieces, n in ((at_a, pieces_a, k), (at_b, pieces_b, m))
            )
            old, new = "".join(pieces_a[k:k_end]), "".join(pieces_b[m:m_end])
            head = shared(old, new)
            tail = shared(old[head:][::-1], new[head:][::-1])
            found.append((start_a + head, start_a + len(old) - tail, start_b + head, start_b + len(new) - tail))
    return found


def _changes(a: Sequence[str], b: Sequence[str]) -> list[Change]:
    codes = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    return [(i, i_end, j, j_end) for tag, i, i_end, j, j_end in codes if tag != "equal"]


def shared(a: str, b: str) -> int:
    """How many characters two texts have in common at their beginning; halving keeps it fast on a hundred megabytes."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def reach(change: Change, a: str, b: str) -> Span:
    """Where in `a` a change may lie, its start and end: of "\\n\\n" for "\\n" nobody knows which one is new."""
    start, end, new_start, new_end = change
    moved = a[start:end] or b[new_start:new_end]
    if not moved or (end > start and new_end > new_start):
        return start, end
    while start > 0 and a[start - 1] == moved[-1]:
        start, moved = start - 1, moved[-1] + moved[:-1]
    moved = a[change[0] : change[1]] or b[new_start:new_end]
    while end < len(a) and a[end] == moved[0]:
        end, moved = end + 1, moved[1:] + moved[0]
    return start, end


def touches(span: Span, place: Span) -> bool:
    """Whether two spans of a text meet; lying side by side counts."""
    return span[0] <= place[1] and place[0] <= span[1]
