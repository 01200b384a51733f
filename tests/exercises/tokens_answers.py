"""Answers to the exercises of notebook 02: the right one, and wrong ones with the mistake that each must be told."""

import itertools
import math
from collections import Counter


def _count(pairs=itertools.pairwise, weigh=True):
    def answer(words):
        counts = Counter()
        for word, times in words.items():
            for pair in pairs(word):
                counts[pair] += times if weigh else 1
        return counts

    return answer


def _overwritten(words):
    counts = {}
    for word, times in words.items():
        for pair in itertools.pairwise(word):
            counts[pair] = times
    return counts


def _one_row(repeat):
    def answer(words):
        return Counter(
            itertools.pairwise([i for word, times in words.items() for i in word * (times if repeat else 1)])
        )

    return answer


def _merge(ids, pair, new):
    out = []
    while ids:
        if tuple(ids[:2]) == pair:
            out, ids = [*out, new], ids[2:]
        else:
            out, ids = [*out, ids[0]], ids[1:]
    return out


def _merge_overlapping(ids, pair, new):
    out, used = [], False
    for i, token in enumerate(ids):
        if tuple(ids[i : i + 2]) == pair:
            out.append(new)
            used = True
        elif used:
            used = False
        else:
            out.append(token)
    return out


def _merge_from_the_right(ids, pair, new):
    return _merge(ids[::-1], pair[::-1], new)[::-1]


def _encode(choose=lambda known, merges: min(known, key=merges.get), merge=_merge, loop=True):
    def answer(ids, merges):
        while True:
            known = [pair for pair in itertools.pairwise(ids) if pair in merges]
            if not known:
                return ids
            pair = choose(known, merges)
            ids = merge(ids, pair, merges[pair])
            if not loop:
                return ids

    return answer


def _no_look_before_min(ids, merges):
    while True:
        pair = min(itertools.pairwise(ids), key=lambda pair: merges.get(pair, math.inf))
        if pair not in merges:
            return ids
        ids = _merge(ids, pair, merges[pair])
        if len(ids) == 1:
            return ids


def _never_stops(ids, merges):
    while True:
        known = [pair for pair in itertools.pairwise(ids) if pair in merges]
        if known:
            pair = min(known, key=merges.get)
            ids = _merge(ids, pair, merges[pair])


def _longest(ids, merges):
    spelled = {i: (i,) for i in range(10)}
    for (left, right), new in merges.items():
        spelled[new] = spelled[left] + spelled[right]
    out = []
    while ids:
        new = max((t for t, s in spelled.items() if tuple(ids[: len(s)]) == s), key=lambda t: len(spelled[t]))
        out, ids = [*out, new], ids[len(spelled[new]) :]
    return out


def _chat(turn, talk=slice(None)):
    def answer(tokenizer, messages):
        start, end = (tokenizer.special_tokens[token] for token in ("<|im_start|>", "<|im_end|>"))
        ids = []
        for message in messages[talk]:
            for piece in turn(start, message["role"], message["content"], end):
                ids += tokenizer.encode(piece) if isinstance(piece, str) else [piece]
        return ids

    return answer


def _rendered(allowed):
    def answer(tokenizer, messages):
        text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        return tokenizer.encode(text, allowed_special=allowed)

    return answer


def _content_allowed(tokenizer, messages):
    start, end = (tokenizer.special_tokens[token] for token in ("<|im_start|>", "<|im_end|>"))
    ids = []
    for m in messages:
        turn = tokenizer.encode(f"{m['role']}\n{m['content']}", allowed_special=True)
        ids += [start, *turn, end, *tokenizer.encode("\n")]
    return ids


def _opened(tokenizer, messages):
    ids = RIGHT_CHAT(tokenizer, messages)
    return [*ids, tokenizer.special_tokens["<|im_start|>"], *tokenizer.encode("assistant\n")]


RIGHT_CHAT = _chat(lambda start, role, content, end: [start, f"{role}\n{content}", end, "\n"])

ANSWERS = {
    "tokens/count_pairs": (
        _count(),
        [
            ("not_a_table", lambda words: [pair for word in words for pair in itertools.pairwise(word)]),
            ("not_weighted", _count(weigh=False)),
            ("across_words", _one_row(repeat=False)),
            ("across_repeats", _one_row(repeat=True)),
            ("in_steps_of_two", _count(lambda word: zip(word[::2], word[1::2]))),
            ("last_missing", _count(lambda word: (word[i : i + 2] for i in range(len(word) - 2)))),
            ("wrapped_around", _count(lambda word: ((word[i - 1], word[i]) for i in range(len(word))))),
            ("order_lost", _count(lambda word: (tuple(sorted(pair)) for pair in itertools.pairwise(word)))),
            ("once_in_a_word", _count(lambda word: set(itertools.pairwise(word)))),
            ("not_neighbours", _count(lambda word: itertools.combinations(word, 2))),
            ("overwritten", _overwritten),
            ("single_tokens", _count(lambda word: word)),
            ("pair_count", lambda words: {(7, 8): 1}),
            ("raised", lambda words: words[0]),
        ],
    ),
    "tokens/encode_word": (
        _encode(),
        [
            ("not_ids", lambda ids, merges: "".join(map(str, ids))),
            ("endless", _never_stops),
            ("short_word", _no_look_before_min),
            ("short_word", lambda ids, merges: _encode()(ids, merges) or [0]),
            ("not_merged", lambda ids, merges: ids),
            ("one_merge", _encode(loop=False)),
            ("leftmost", _encode(lambda known, merges: known[0])),
            ("latest_first", _encode(lambda known, merges: max(known, key=merges.get))),
            ("longest_token", _longest),
            ("most_frequent", _encode(lambda known, merges: max(known, key=known.count))),
            ("overlapping", _encode(merge=_merge_overlapping)),
            ("from_the_right", _encode(merge=_merge_from_the_right)),
            ("other_ids", lambda ids, merges: ids[::-1]),
        ],
    ),
    "tokens/bits_per_byte": (
        lambda loss, ids, text: loss / math.log(2) * len(ids) / len(text.encode()),
        [
            ("not_a_number", lambda loss, ids, text: [loss]),
            ("nats", lambda loss, ids, text: loss * len(ids) / len(text.encode())),
            ("times_ln2", lambda loss, ids, text: loss * math.log(2) * len(ids) / len(text.encode())),
            ("per_character", lambda loss, ids, text: loss / math.log(2) * len(ids) / len(text)),
            ("nats_per_character", lambda loss, ids, text: loss * len(ids) / len(text)),
            ("inverted", lambda loss, ids, text: loss / math.log(2) * len(text.encode()) / len(ids)),
            ("per_token", lambda loss, ids, text: loss / math.log(2)),
            ("whole_text", lambda loss, ids, text: loss / math.log(2) * len(ids)),
            ("divided_twice", lambda loss, ids, text: loss / math.log(2) / len(text.encode())),
            ("logarithm_of_loss", lambda loss, ids, text: math.log2(loss) * len(ids) / len(text.encode())),
            ("utf16", lambda loss, ids, text: loss / math.log(2) * len(ids) / len(text.encode("utf-16"))),
            ("per_word", lambda loss, ids, text: loss / math.log(2) * len(ids) / len(text.split())),
            ("other_number", lambda loss, ids, text: -1.0),
        ],
    ),
    "tokens/encode_chat": (
        RIGHT_CHAT,
        [
            ("not_ids", lambda tokenizer, messages: [tokenizer.encode(m["content"]) for m in messages]),
            ("smuggled", _rendered(allowed=True)),
            ("smuggled", _content_allowed),
            ("special_as_text", _rendered(allowed=False)),
            ("break_after_role", _chat(lambda start, role, content, end: [start, role + content, end, "\n"])),
            ("break_after_role", _chat(lambda start, role, content, end: [start, role, content, end, "\n"])),
            ("space_after_role", _chat(lambda start, role, content, end: [start, f"{role} {content}", end, "\n"])),
            ("break_after_end", _chat(lambda start, role, content, end: [start, f"{role}\n{content}", end])),
            ("not_closed", _chat(lambda start, role, content, end: [start, f"{role}\n{content}\n"])),
            ("no_role", _chat(lambda start, role, content, end: [start, content, end, "\n"])),
            ("in_pieces", _chat(lambda start, role, content, end: [start, role, "\n", content, end, "\n"])),
            ("in_pieces", _chat(lambda start, role, content, end: [start, f"{role}\n", content, end, "\n"])),
            ("stripped", _chat(lambda start, role, content, end: [start, f"{role}\n{content.strip()}", end, "\n"])),
            ("turn_opened", _opened),
            (
                "last_message_only",
                _chat(lambda start, role, content, end: [start, f"{role}\n{content}", end, "\n"], slice(-1, None)),
            ),
            ("other_ids", lambda tokenizer, messages: [1, 2, 3]),
        ],
    ),
}
