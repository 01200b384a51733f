"""A model from a .onnx file, computed by ONNX Runtime: logits with a key/value cache, and writing token by token.

B prompts, T new positions, S positions in the cache, L = n_layer, G = n_kv_head, D = head_dim, V = vocab_size. Token ids
in, token ids out, as tensors; PyTorch computes nothing here but the draw of the next token.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minigpt.config import GPTConfig, SampleConfig
from minigpt.generate import draw, seeded
from minigpt.interop.onnx import FIELD, INSTALL

Cache = tuple[np.ndarray, np.ndarray]  # keys and values, each (L, B, G, S, D)


class OnnxGPT:
    """A file of `save_onnx`, opened, with as many threads as PyTorch has (`torch.set_num_threads`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, one that `save_onnx` did not write, or the package onnxruntime is missing.
    """

    def __init__(self, path: str | PathLike):
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(f"a .onnx file is computed by the package onnxruntime; {INSTALL}") from error
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}; save_onnx(model, path) writes it.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors, which are raised as well
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # each of the library's errors has a class of its own
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{path} is no .onnx file that can be opened, or is damaged ({reason}); save it again."
            ) from error
        fields = self._session.get_modelmeta().custom_metadata_map
        if FIELD not in fields:
            raise ValueError(f"{path} does not say which shape its model has; minigpt opens what save_onnx wrote.")
        self.config = GPTConfig.make(**json.loads(fields[FIELD]))

    def __call__(self, idx: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Logits for the token after each position, and the cache with the new positions.

        Args:
            idx: token ids (B, T), only those that the cache has not seen.
            cache: what the call before gave back; None begins anew. It is not changed.

        Returns:
            logits (B, T, V), and keys and values, each (L, B, G, S + T, D).

        Raises:
            ValueError: no ids or ids outside the vocabulary, more tokens than the context holds, or a cache that does
                not fit.
        """
        config = self.config
        self._check(idx, cache)
        if cache is None:
            empty = np.zeros((config.n_layer, len(idx), config.n_kv_head, 0, config.head_dim), np.float32)
            cache = empty, empty
        inputs = {"idx": idx.long().numpy(), "past_keys": cache[0], "past_values": cache[1]}
        logits, keys, values = self._session.run(["logits", "keys", "values"], inputs)
        return torch.from_numpy(logits), (keys, values)

    def _check(self, idx: Tensor, cache: Cache | None) -> None:
        config, seen = self.config, 0
        if idx.dim() != 2 or idx.numel() == 0 or idx.is_floating_point():
            raise ValueError(
                f"idx has shape {tuple(idx.shape)} and type {idx.dtype}; expected are ids (B, T), whole numbers, at least one: "
                "put one sequence in as idx[None]."
            )
        if cache is not None:
            seen = cache[0].shape[3]
            expected = (config.n_layer, len(idx), config.n_kv_head, seen, config.head_dim)
            if any(part.shape != expected for part in cache):
                raise ValueError(
                    f"the cache has shape {cache[0].shape}, expected {expected} for {len(idx)} rows; give back what the call "
                    "before returned, or None to begin anew."
                )
        if seen + idx.size(1) > config.context_length:
            raise ValueError(
                f"{seen + idx.size(1)} tokens do not fit context_length={config.context_length}; "
                f"keep the last ones, idx[:, -{config.context_length}:]."
            )
        low, high = map(int, torch.aminmax(idx))
        if low < 0 or high >= config.vocab_size:
            raise ValueError(
                f"token id {low if low < 0 else high} lies outside the vocabulary 0 to {config.vocab_size - 1}; "
                "encode with the tokenizer that the model was trained with."
            )

    def generate(self, idx: Tensor, **options: Any) -> Tensor:
        """Continue each prompt as `minigpt.generate` does: the same options, draws and errors.

        When the context is full, its last half is read again and goes on.

        Args:
            idx: prompts (B, T) of one length.

        Returns:
            ids (B, T + new); a row that met a stop token early is filled up with that token.

        Raises:
            ValueError: as in `__call__`, or an impossible option.
        """
        config, context = SampleConfig.make(**options), self.config.context_length
        self._check(idx, None)
        generator = seeded(config)
        used = torch.zeros(len(idx), self.config.vocab_size, dtype=torch.bool).scatter(1, idx, True)
        stop = torch.tensor(config.stop_tokens, dtype=torch.int64)
        read, unread, cache = idx, idx, None  # `read` goes on behind a stop token, as the rows share a batch
        written, done = [idx], torch.zeros(len(idx), 1, dtype=torch.bool)
        for _ in range(config.max_new_tokens):
            if cache is not None and cache[0].shape[3] + unread.size(1) > context:
                unread, cache = read[:, -max(1, context // 2) :], None
            logits, cache = self(unread, cache)
            unread = draw(logits[:, -1], config, generator, used)  # (B, 1)
            used.scatter_(1, unread, True)
            read = torch.cat([read, unread], dim=1)[:, -context:]
            written.append(torch.where(done, written[-1][:, -1:], unread))
            done = done | torch.isin(unread, stop)
            if done.all():
                break
        return torch.cat(written, dim=1)  # (B, T + new)
