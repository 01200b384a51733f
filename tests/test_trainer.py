import os
import signal
import sys
import threading

import pytest
import torch
from conftest import FAMILIES, make_model

from minigpt import TokenData, Trainer
from minigpt.evaluate import bits_per_byte, evaluate_loss, perplexity
from minigpt.trainer import TrainingDiverged


def fresh(tokenizer, **changes):
    return make_model(FAMILIES["llama"].replace(vocab_size=tokenizer.vocab_size, **changes))


class At:
    """A callback that does something after one step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step(self, trainer, row):
        if row["step"] == self.step:
            self.action(trainer)


def test_the_loss_falls_and_the_history_tells(small_data, quick):
    tokenizer, train, val = small_data
    history = Trainer(fresh(tokenizer), train, val, quick.replace(max_steps=80), callbacks=[]).fit()
    assert history["train_loss"][1][-1] < 0.5 * history["train_loss"][1][0]
    assert history["val_loss"][0] == [10, 20, 30, 40, 50, 60, 70, 80]
    assert history.rows[-1]["tokens"] == 80 * 4 * 8
    assert "80 updates" in repr(history) and not history.stopped_early


def test_the_same_seed_gives_the_same_numbers_and_leaves_other_random_numbers_alone(small_data, quick):
    tokenizer, train, val = small_data
    losses = []
    for _ in range(2):
        torch.manual_seed(9)
        model = fresh(tokenizer, dropout=0.2)
        state = torch.get_rng_state()
        losses.append(Trainer(model, train, val, quick, callbacks=[]).fit()["train_loss"])
        assert torch.equal(torch.get_rng_state(), state)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("stop_at", [7, 10])
def test_interrupted_and_resumed_is_bit_identical(small_data, quick, tmp_path, stop_at):
    tokenizer, train, val = small_data
    whole = Trainer(fresh(tokenizer, dropout=0.2), train, val, quick, callbacks=[]).fit()
    begun = Trainer(
        fresh(tokenizer, dropout=0.2), train, val, quick, callbacks=[At(stop_at, Trainer.stop)], folder=tmp_path
    ).fit()
    assert begun.stopped_early and len(begun.rows) == stop_at
    model = fresh(tokenizer, dropout=0.2)
    resumed = Trainer(model, train, val, quick, callbacks=[], folder=tmp_path).fit(resume=True)
    assert resumed["train_loss"] == whole["train_loss"] and resumed["val_loss"] == whole["val_loss"]


def test_a_killed_process_loses_only_what_came_after_its_last_checkpoint(small_data, quick, tmp_path):
    tokenizer, train, val = small_data

    class Killed(BaseException):
        pass

    def die(trainer):
        raise Killed

    with pytest.raises(Killed):
        Trainer(fresh(tokenizer), train, val, quick, callbacks=[At(13, die)], folder=tmp_path).fit()
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["step"] == 10
    history = Trainer(fresh(tokenizer), train, val, quick, callbacks=[], folder=tmp_path).fit(resume=True)
    whole = Trainer(fresh(tokenizer), train, val, quick, callbacks=[]).fit()
    assert history["train_loss"] == whole["train_loss"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to a process of its own kind there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_after_the_update_and_give_back_the_history(small_data, quick, tmp_path, number):
    tokenizer, train, val = small_data
    before = signal.getsignal(number)
    interrupt = At(5, lambda trainer: os.kill(os.getpid(), number))
    history = Trainer(fresh(tokenizer), train, val, quick, callbacks=[interrupt], folder=tmp_path).fit()
    assert len(history.rows) == 5 and history.stopped_early and (tmp_path / "resume.pt").exists()
    assert signal.getsignal(number) is before


def test_stop_may_come_from_another_thread(small_data, quick):
    tokenizer, train, val = small_data

    def from_outside(trainer):
        thread = threading.Thread(target=trainer.stop)
        thread.start()
        thread.join()

    history = Trainer(fresh(tokenizer), train, val, quick, callbacks=[At(3, from_outside)]).fit()
    assert len(history.rows) == 3


def test_a_stopped_trainer_goes_on_when_asked_again(small_data, quick):
    tokenizer, train, val = small_data
    trainer = Trainer(fresh(tokenizer), train, val, quick, callbacks=[At(3, Trainer.stop)])
    trainer.fit()
    assert len(trainer.fit().rows) == 20


class Cut:
    """Gives the windows of one large batch in pieces of these sizes, one after the other."""

    def __init__(self, data, sizes, masked=0):
        self.data, self.sizes, self.masked = data, sizes, masked

    def batch(self, step, batch_size):
        update, piece = divmod(step, len(self.sizes))
        idx, targets = self.data.batch(update, sum(self.sizes))
        targets[: self.masked, 2:] = -100
        first = sum(self.sizes[:piece])
        return idx[first : first + self.sizes[piece]], targets[first : first + self.sizes[piece]]


@pytest.mark.parametrize("masked", [0, 3])
@pytest.mark.parametrize("sizes", [(4, 4), (4, 3, 1), (2, 2, 2, 2)])
def test_micro_batches_equal_one_large_batch(small_data, quick, sizes, masked):
    """The last may be short, and targets that do not count may lie anywhere: every target weighs the same."""
    tokenizer, train, _ = small_data
    one, many = fresh(tokenizer), fresh(tokenizer)
    whole = Trainer(one, Cut(train, (8,), masked), None, quick.replace(max_steps=5), callbacks=[]).fit()
    cut = quick.replace(max_steps=5, grad_accum_steps=len(sizes))
    pieces = Trainer(many, Cut(train, sizes, masked), None, cut, callbacks=[]).fit()
    assert pieces["train_loss"][1] == pytest.approx(whole["train_loss"][1], rel=1e-4)
    assert pieces["grad_norm"][1][0] == pytest.approx(whole["grad_norm"][1][0], rel=1e-5)
    assert pieces.rows[-1]["tokens"] == whole.rows[-1]["tokens"]


def test_a_loss_that_is_no_number_stops_before_it_spoils_the_weights(small_data, quick, tmp_path):
    tokenizer, train, val = small_data
    model = fresh(tokenizer)

    class Poison(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = model, 0

        def forward(self, idx, targets):
            self.calls += 1
            logits, loss = self.inner(idx, targets)
            return logits, loss * (float("nan") if self.calls == 6 else 1.0)

    with pytest.raises(TrainingDiverged, match=r"at update 6 the loss is nan.*Try a learning_rate below"):
        Trainer(Poison(), train, None, quick.replace(checkpoint_every=2), callbacks=[], folder=tmp_path).fit()
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["step"] == 4


def test_a_loss_that_climbs_stops_the_run_and_its_checkpoint_is_from_before(small_data, quick, tmp_path):
    tokenizer, train, _ = small_data
    hot = quick.replace(max_steps=200, learning_rate=3.0, grad_clip=None, warmup_steps=15, eval_every=1, max_rise=0.5)
    trainer = Trainer(fresh(tokenizer), train, None, hot, callbacks=[], folder=tmp_path)
    with pytest.raises(
        TrainingDiverged, match=r"averaged over the last ten.*holds the last checkpoint\. Try a learning"
    ):
        trainer.fit()
    kept = torch.load(tmp_path / "resume.pt", weights_only=True)
    losses = trainer.history["train_loss"][1]
    assert 0 < kept["step"] < trainer.step and losses[kept["step"] - 1] < losses[-1]
    goes_on = Trainer(fresh(tokenizer), train, None, hot.replace(max_rise=None), callbacks=[]).fit()
    assert len(goes_on.rows) == 200


def test_a_full_disk_leaves_the_older_checkpoint(small_data, quick, tmp_path, monkeypatch):
    tokenizer, train, val = small_data
    Trainer(fresh(tokenizer), train, val, quick, callbacks=[At(12, Trainer.stop)], folder=tmp_path).fit()
    before = (tmp_path / "resume.pt").read_bytes()
    real = torch.save

    def full(state, path):
        real(state, path)
        path.write_bytes(path.read_bytes()[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(UserWarning, match="training goes on without a checkpoint of step 20"):
        Trainer(fresh(tokenizer), train, val, quick, callbacks=[], folder=tmp_path).fit(resume=True)
    assert (tmp_path / "resume.pt").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_during_a_checkpoint_warns_and_training_goes_on(small_data, quick, tmp_path, monkeypatch):
    tokenizer, train, val = small_data

    def full(state, path):
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(UserWarning, match="goes on without a checkpoint of step"):
        history = Trainer(fresh(tokenizer), train, val, quick, callbacks=[], folder=tmp_path).fit()
    assert len(history.rows) == 20 and not list(tmp_path.iterdir())


def test_a_folder_is_not_overwritten_and_other_settings_are_named(small_data, quick, tmp_path):
    tokenizer, train, val = small_data
    Trainer(fresh(tokenizer), train, val, quick, callbacks=[], folder=tmp_path).fit()
    with pytest.raises(ValueError, match=r"already holds a run; fit\(resume=True\)"):
        Trainer(fresh(tokenizer), train, val, quick, callbacks=[], folder=tmp_path).fit()
    with pytest.raises(ValueError, match=r"learning_rate: 0.01 there, 0.02 here"):
        other = quick.replace(learning_rate=0.02)
        Trainer(fresh(tokenizer), train, val, other, callbacks=[], folder=tmp_path).fit(resume=True)
    (tmp_path / "resume.pt").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="is damaged"):
        Trainer(fresh(tokenizer), train, val, quick, callbacks=[], folder=tmp_path).fit(resume=True)


def test_a_run_goes_on_only_with_a_model_of_its_own_shape(small_data, quick, tmp_path):
    tokenizer, train, val = small_data
    Trainer(fresh(tokenizer), train, val, quick, callbacks=[], folder=tmp_path).fit()
    for changes, words in (
        ({"n_embd": 32}, r"token_embedding\.weight: \[\d+, 16\] there, \[\d+, 32\] here"),
        ({"n_layer": 3}, r"blocks\.2\.attention_norm\.weight: None there, \[16\] here"),
    ):
        with pytest.raises(ValueError, match=rf"was begun with other settings \(.*{words}"):
            model = fresh(tokenizer, **changes)
            Trainer(model, train, val, quick, callbacks=[], folder=tmp_path).fit(resume=True)


def test_an_absent_device_is_refused(small_data, quick):
    if torch.cuda.is_available():
        pytest.skip("this machine has the device that the test needs absent")
    with pytest.raises(ValueError, match="device='cuda' is not available here"):
        Trainer(fresh(small_data[0]), small_data[1], None, quick.replace(device="cuda"))


@pytest.mark.parametrize(("precision", "words"), [("fp16", "is for cuda and mps"), ("tf32", "is for cuda, and")])
def test_a_precision_that_a_processor_lacks_is_refused(small_data, quick, precision, words):
    with pytest.raises(ValueError, match=words):
        Trainer(fresh(small_data[0]), small_data[1], None, quick.replace(precision=precision, device="cpu"))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_activation_checkpointing_keeps_less_and_changes_nothing(small_data, quick, dropout):
    tokenizer, train, _ = small_data
    losses, kept = [], []
    for recompute in (False, True):
        model, sizes = fresh(tokenizer, dropout=dropout, n_layer=4), []

        def keep(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        config = quick.replace(max_steps=3, activation_checkpointing=recompute, device="cpu")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            losses.append(Trainer(model, train, None, config, callbacks=[]).fit()["train_loss"][1])
        kept.append(sum(sizes))
        assert model.activation_checkpointing is False
    assert losses[0] == losses[1] and kept[1] < 0.6 * kept[0]


def test_activation_checkpointing_is_refused_for_a_model_without_it(small_data, quick):
    with pytest.raises(ValueError, match="Linear cannot compute its blocks twice"):
        Trainer(torch.nn.Linear(2, 2), small_data[1], None, quick.replace(activation_checkpointing=True))


def test_where_compiling_fails_training_goes_on_without(small_data, quick, monkeypatch):
    tokenizer, train, _ = small_data

    def no_compiler(model):
        def forward(*_):
            raise RuntimeError("no working C++ compiler")

        return forward

    monkeypatch.setattr(torch, "compile", no_compiler)
    plain = Trainer(fresh(tokenizer, dropout=0.1), train, None, quick, callbacks=[]).fit()
    with pytest.warns(UserWarning, match="goes on without: no working C.. compiler"):
        compiled = Trainer(fresh(tokenizer, dropout=0.1), train, None, quick.replace(compile=True), callbacks=[]).fit()
    assert compiled["train_loss"] == plain["train_loss"]


def test_muon_learns_and_resumes_bit_for_bit(small_data, quick, tmp_path):
    tokenizer, train, val = small_data
    muon = quick.replace(optimizer="muon", schedule="wsd", min_lr=0.0)
    whole = Trainer(fresh(tokenizer), train, val, muon, callbacks=[]).fit()
    assert whole.last("val_loss") < 0.5 * whole["train_loss"][1][0]
    Trainer(fresh(tokenizer), train, val, muon, callbacks=[At(7, Trainer.stop)], folder=tmp_path).fit()
    resumed = Trainer(fresh(tokenizer), train, val, muon, callbacks=[], folder=tmp_path).fit(resume=True)
    assert resumed["train_loss"] == whole["train_loss"] and resumed["val_loss"] == whole["val_loss"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_precision_of_a_gpu_learns_and_resumes(small_data, quick, tmp_path, precision, optimizer):
    tokenizer, train, val = small_data
    config = quick.replace(device="cuda", precision=precision, optimizer=optimizer, max_steps=60)
    history = Trainer(fresh(tokenizer), train, val, config, callbacks=[]).fit()
    assert history.last("val_loss") < 0.7 * history["train_loss"][1][0]
    Trainer(fresh(tokenizer), train, val, config, callbacks=[At(7, Trainer.stop)], folder=tmp_path).fit()
    resumed = Trainer(fresh(tokenizer), train, val, config, callbacks=[], folder=tmp_path).fit(resume=True)
    assert resumed.last("val_loss") == pytest.approx(history.last("val_loss"), rel=2e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
def test_a_gpu_learns_the_same(small_data, quick):
    tokenizer, train, val = small_data
    losses = [
        Trainer(fresh(tokenizer), train, val, quick.replace(device=device), callbacks=[]).fit().last("val_loss")
        for device in ("cpu", "cuda")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_bf16_takes_nearly_the_same_first_steps(small_data, quick):
    tokenizer, train, val = small_data
    first = [
        Trainer(fresh(tokenizer), train, val, quick.replace(precision=p, max_steps=5), callbacks=[]).fit()[
            "train_loss"
        ][1]
        for p in ("fp32", "bf16")
    ]
    assert first[0] != first[1] and first[0] == pytest.approx(first[1], rel=0.05)


@pytest.mark.parametrize(
    ("present", "precision"),
    [({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True, "amx_bf16": False}, "bf16"), ({"avx2": True}, "fp32"), ({}, "fp32")],
)  # fmt: skip
def test_auto_takes_bf16_where_the_processor_has_instructions_for_it(
    small_data, quick, monkeypatch, present, precision
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: present, raising=False)
    tokenizer, train, _ = small_data
    auto = quick.replace(precision="auto", device="cpu")
    assert Trainer(fresh(tokenizer), train, None, auto, callbacks=[]).precision == precision
    assert Trainer(fresh(tokenizer), train, None, auto.replace(precision="fp32"), callbacks=[]).precision == "fp32"


def test_evaluation_weighs_every_target_the_same(small_data):
    tokenizer, _, val = small_data
    model = fresh(tokenizer)
    one_by_one, together = (evaluate_loss(model, val.windows(size)) for size in (1, 1000))
    assert one_by_one == pytest.approx(together, rel=1e-5)
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate_loss(model, [])


def test_a_validation_set_smaller_than_a_batch_is_judged_whole(small_data, quick):
    tokenizer, train, val = small_data
    short = TokenData(val.tokens[:12], context_length=8)
    history = Trainer(fresh(tokenizer), train, short, quick.replace(batch_size=64, max_steps=2), callbacks=[]).fit()
    assert sum(int((targets != -100).sum()) for _, targets in short.windows(64)) == 11
    assert history.last("val_loss") > 0


def test_perplexity_and_bits_per_byte():
    assert perplexity(0.0) == 1.0
    assert bits_per_byte(loss=0.6931472, tokens=100, n_bytes=200) == pytest.approx(0.5)
