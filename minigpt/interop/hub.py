"""Where a model lies: a path, or a name on the Hugging Face hub, whose files are fetched once and kept in its cache."""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path

from minigpt.corpus import FetchError

SINGLE_NAMES = {  # models of the hub that people know without their owner
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
OWNER_AND_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(?<!\.json)(?<!\.gguf)(?<!\.safetensors)(?<!\.bin)", re.ASCII)
FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja"]


def locate(where: str | PathLike) -> Path:
    """A path as it is, whether anything lies there or not; for a name on the hub the folder that it was fetched into.

    Raises:
        FetchError: there is no such path, and no such model could be fetched; the message says what to do.
    """
    path = Path(where).expanduser()
    if path.exists() or not isinstance(where, str):
        return path
    name = SINGLE_NAMES.get(where, where)
    return _fetch(name) if OWNER_AND_NAME.fullmatch(name) else path


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download

    offline = next((switch for switch in ("MINIGPT_OFFLINE", "HF_HUB_OFFLINE") if os.environ.get(switch)), None)
    try:
        return Path(
            snapshot_download(name, allow_patterns=FILES, ignore_patterns=["*/*"], local_files_only=offline is not None)
        )
    except Exception as error:  # the hub's client reports a missing network in a dozen types
        reason = (
            f"is not in its cache on this machine, and {offline} forbids fetching it"
            if offline
            else f"could not be fetched ({type(error).__name__}: {str(error)[:200]})"
        )
        raise FetchError(
            f"there is no file or folder {name!r}, and the model of that name on the Hugging Face hub {reason}. "
            f"Check the name and the path; for the model, connect once and run: GPT.from_pretrained({name!r}). "
            "packaged_smollm2() of minigpt.interop is a model that comes with the course's data."
        ) from error
