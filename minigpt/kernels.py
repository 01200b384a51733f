"""The arithmetic of one token, compiled for this processor by numba. `minigpt.decoder` puts it in order.

A product of one row with a matrix is read, not computed: each weight is used once. So every core walks through its share
of the matrix's rows, in the order in which they lie in memory, and does on the way what would otherwise be calls of
their own. Arrays are numpy's, fp32 unless said, and results go into what is given for them.

B rows, N outputs, K inputs, C = n_embd, H = n_head, G = n_kv_head, D = head_dim, S positions in the cache. This module
knows nothing of models.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numba
import numpy as np
from numba import njit, prange, types
from numba.extending import overload
from numpy import ndarray


def has_openmp() -> bool:
    """Whether numba shares out work through OpenMP, or what serves as well: several threads may ask for that at once."""
    try:
        importlib.import_module("numba.np.ufunc.omppool")
    except ImportError:
        return False
    return numba.config.THREADING_LAYER != "workqueue"


SET, ADD, TIMES, GELU, SQUARED_RELU, SILU = range(6)  # what becomes of a product (see `finish`)

# Sums may go in any order, so that they fit the processor's registers; NaN and infinity stay what they are.
ORDER_IS_FREE = {"reassoc", "contract", "arcp", "nsz"}
alone = njit(nogil=True, cache=True, fastmath=ORDER_IS_FREE)
# Without OpenMP (on a Mac) numba's threads take longer to start than a product takes on one core.
SHARED = has_openmp()
together = njit(nogil=True, cache=True, fastmath=ORDER_IS_FREE, parallel=SHARED)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """As many threads, or all that there are, share the work that this thread calls for inside."""
    if not SHARED:
        yield
        return
    before = numba.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)


HALF, ONE = np.float32(0.5), np.float32(1)
LARGEST = np.float32(np.finfo(np.float32).max)
SAFE = 512  # products of 127 and 32767
GELU_SLOPE, GELU_CUBE = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)


@alone
def finish(y: float, then: int, before: float) -> float:
    """What a product y leaves in a place where `before` stood. `then` is SET, ADD, TIMES, or SET to a function of y: GELU in
    its tanh form (Hendrycks & Gimpel 2016), SQUARED_RELU (So et al. 2021), SILU (Elfwing et al. 2017)."""
    if then == ADD:
        return before + y
    if then == TIMES:
        return before * y
    if then == GELU:
        return y * HALF * (ONE + math.tanh(GELU_SLOPE * (y + GELU_CUBE * y * y * y)))
    if then == SQUARED_RELU:
        return max(y, np.float32(0)) * y
    if then == SILU:
        return y / (ONE + math.exp(-y))
    return y


def widened(weight: float) -> float:
    """A weight in fp32. One in bf16 comes as the whole number that its 16 bits are: they are the upper half of fp32's."""
    raise NotImplementedError  # chosen by type where it is compiled


@overload(widened)
def _widened(weight):  # numba wants this signature to be that of what it returns
    if isinstance(weight, types.Integer):
        return lambda weight: np.uint32(np.uint32(weight) << np.uint32(16)).view(np.float32)
    return lambda weight: weight


@together
def multiply(x: ndarray, weight: ndarray, bias: ndarray, then: int, out: ndarray) -> None:
    """x (B, K) times weight (N, K) transposed, plus bias (N,), into out (B, N) as `finish` says. The weights are in fp32, or
    in bf16 as uint16."""
    for n in prange(weight.shape[0]):
        for b in range(x.shape[0]):
            y = np.float32(0)
            for k in range(weight.shape[1]):
                y += widened(weight[n, k]) * x[b, k]
            out[b, n] = finish(y + bias[n], then, out[b, n])


@together
def multiply_whole(x: ndarray, weight: ndarray, scale: ndarray, bias: ndarray, then: int, out: ndarray) -> None:
    """The same for weights in whole numbers, int8 (N, K), each row of them times its scale (N,).

    Each row of x is rounded to whole numbers of 16 bits, its largest magnitude to 32767, so that processors multiply and
    add pairs of them in one instruction. Sums of `SAFE` products fit 32 bits.
    """
    rows, width = x.shape
    whole, step = np.empty((rows, width), np.int16), np.empty(rows, np.float32)
    for b in range(rows):
        largest, total = np.float32(0), np.float32(0)
        for k in range(width):
            largest = max(largest, abs(x[b, k]))
            total += x[b, k]
        if not abs(total) <= LARGEST:
            largest = total  # NaN and infinity reach every output
        step[b] = largest / np.float32(32767)
        for k in range(width):
            whole[b, k] = np.int16(np.rint(x[b, k] / step[b])) if largest > 0 else np.int16(0)
    for n in prange(weight.shape[0]):
        for b in range(rows):
            y = np.float32(0)
            for first in range(0, width, SAFE):
                left, right = weight[n, first : first + SAFE], whole[b, first : first + SAFE]
                total = np.int32(0)
                for k in range(left.size):
                    total = np.int32(total + np.int32(np.int16(left[k])) * np.int32(right[k]))
                y += np.float32(total)
            out[b, n] = finish(y * step[b] * scale[n] + bias[n], then, out[b, n])


@alone
def normalise(x: ndarray, weight: ndarray, bias: ndarray, eps: float, centred: bool, out: ndarray) -> None:
    """LayerNorm (Ba et al. 2016), or RMSNorm (Zhang & Sennrich 2019) where not `centred`, of each row (B, C) into out."""
    width = x.shape[1]
    for b in range(x.shape[0]):
        mean = np.float32(0)
        if centred:
            for c in range(width):
                mean += x[b, c]
            mean /= np.float32(width)
        square = np.float32(0)
        for c in range(width):
            square += (x[b, c] - mean) * (x[b, c] - mean)
        scale = ONE / math.sqrt(square / np.float32(width) + np.float32(eps))
        for c in range(width):
            out[b, c] = (x[b, c] - mean) * scale * weight[c] + bias[c]


@alone
def rotate(heads: ndarray, count: int, cos: ndarray, sin: ndarray, positions: ndarray) -> None:
    """Turn each pair (i, i + D/2) of the first heads of each row by the angle of its position (B,), in place (Su et al.
    2021, equation 34). heads (B, any, D), cos and sin (context_length, D)."""
    half = heads.shape[2] // 2
    for b in range(heads.shape[0]):
        c, s = cos[positions[b]], sin[positions[b]]
        for h in range(count):
            for i in range(half):
                left, right = heads[b, h, i], heads[b, h, i + half]
                heads[b, h, i] = left * c[i] - right * s[i]
                heads[b, h, i + half] = right * c[i + half] + left * s[i + half]


@alone
def store(qkv: ndarray, keys: ndarray, values: ndarray, place: int) -> None:
    """Put one position's keys and values, the last 2 G heads of qkv (B, H + 2 G, D), into (B, G, context_length, D)."""
    rows, grouped = keys.shape[:2]
    heads = qkv.shape[1] - 2 * grouped
    for b in range(rows):
        for g in range(grouped):
            keys[b, g, place] = qkv[b, heads + g]
            values[b, g, place] = qkv[b, heads + grouped + g]


@alone
def attend_with(
    head: int, qkv: ndarray, keys: ndarray, values: ndarray, place: int, first: int, scores: ndarray, out: ndarray
) -> None:
    """Mix the values of the positions `first` to `place` for one head of one row; the arrays are that row's."""
    heads, width = out.shape
    g = head * keys.shape[0] // heads
    shrink, largest = ONE / math.sqrt(np.float32(width)), np.float32(-np.inf)
    for s in range(first, place + 1):
        score = np.float32(0)
        for d in range(width):
            score += qkv[head, d] * keys[g, s, d]
        scores[head, s] = score * shrink
        largest = max(largest, score * shrink)
    total = np.float32(0)
    out[head] = 0
    for s in range(first, place + 1):
        weight = math.exp(scores[head, s] - largest)
        total += weight
        for d in range(width):
            out[head, d] += weight * values[g, s, d]
    for d in range(width):
        out[head, d] /= total


@together
def attend(
    qkv: ndarray, keys: ndarray, values: ndarray, place: int, padding: ndarray, scores: ndarray, out: ndarray
) -> None:
    """Store one position's keys and values, and mix the values of all that each row may look at.

    Args:
        qkv: (B, H + 2 G, D), turned already.
        keys, values: (B, G, context_length, D), of which `place` positions are filled.
        padding: how many of them are filling in each row, (B,).
        scores: room for (B, H, context_length).
        out: (B, H, D).
    """
    store(qkv, keys, values, place)
    for both in prange(out.shape[0] * out.shape[1]):
        b, h = both // out.shape[1], both % out.shape[1]
        attend_with(h, qkv[b], keys[b], values[b], place, padding[b], scores[b], out[b])


@alone
def attend_alone(
    qkv: ndarray, keys: ndarray, values: ndarray, place: int, padding: ndarray, scores: ndarray, out: ndarray
) -> None:
    """`attend` on one core, beside products that PyTorch's threads share: they and numba's are in each other's way."""
    store(qkv, keys, values, place)
    for b in range(out.shape[0]):
        for h in range(out.shape[1]):
            attend_with(h, qkv[b], keys[b], values[b], place, padding[b], scores[b], out[b])
