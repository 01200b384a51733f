import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf_files import write_gguf
from safetensors.torch import load_file, save_file

from minigpt import GPT, GPTConfig

METER = Path("/proc/self/status")  # its VmHWM is the most memory that this process alone has had since it began
LOAD = """
import sys, gguf, torch, minigpt
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
before = peak()
model = minigpt.GPT.from_pretrained(sys.argv[1], getattr(torch, sys.argv[2]))
print(peak() - before, model.num_parameters())
"""
SIZES = {"vocab_size": 16_000, "n_layer": 10, "n_head": 8, "n_kv_head": 4, "n_embd": 512, "n_hidden": 1408}


@pytest.fixture(scope="module")
def model():
    """38 million random numbers, 0.15 GB in fp32."""
    return GPT(GPTConfig.llama(**SIZES, context_length=256, tie_embedding=True))


def _single(folder, model):
    model.save_pretrained(folder)
    return folder


def _sharded(folder, model):
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    names = {name: f"model-{i % 3}.safetensors" for i, name in enumerate(weights)}
    for file in set(names.values()):
        save_file({n: t for n, t in weights.items() if names[n] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (folder / "model.safetensors").unlink()
    return folder


def _gguf(folder, model):
    return write_gguf(folder / "m.gguf", model, Type.Q8_0)


@pytest.mark.skipif(not METER.exists(), reason="only Linux has a meter for one process alone")
@pytest.mark.parametrize(
    ("write", "dtype", "most"),
    [
        (_single, torch.float32, 1.4),
        (_sharded, torch.bfloat16, 2.1),  # the largest tensor is in memory in fp32 too, while it is made small
        (_gguf, torch.float32, 1.4),
        (_gguf, torch.bfloat16, 2.1),
    ],
)
def test_opening_a_model_takes_little_more_memory_than_its_weights(write, dtype, most, model, tmp_path):
    command = [sys.executable, "-c", LOAD, str(write(tmp_path, model)), str(dtype).removeprefix("torch.")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    taken, parameters = map(int, done.stdout.split())
    assert parameters == model.num_parameters()
    assert 0.9 < taken / (parameters * dtype.itemsize) < most
