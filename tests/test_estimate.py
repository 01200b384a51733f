import dataclasses
import gc
import itertools

import pytest
import torch
from torch.autograd.profiler import profile

from minigpt import estimate
from minigpt.config import PRESETS, GPTConfig, TrainConfig
from minigpt.hardware import has_fast_bf16
from minigpt.model import GPT
from minigpt.trainer import Trainer

SIZES = {"vocab_size": 128, "context_length": 32, "n_layer": 3, "n_head": 4, "n_embd": 64}
SHAPES = {
    "llama": GPTConfig.llama(**SIZES),
    "gpt2": GPTConfig.gpt2(**SIZES),
    "grouped": GPTConfig.llama(**SIZES, n_kv_head=1),
    "dropout": GPTConfig.gpt2(**SIZES, dropout=0.1),
    "qk_norm": GPTConfig.gpt2(**SIZES, qk_norm=True),
    "untied": GPTConfig.llama(**SIZES, tie_embedding=False),
    "vocabulary": GPTConfig.llama(**(SIZES | {"vocab_size": 2048})),
    "relu2": GPTConfig.llama(**SIZES, mlp="relu2", qk_norm=True, dropout=0.1),
    "dropout, grouped": GPTConfig.gpt2(**SIZES, dropout=0.1, n_kv_head=2),
    "capped": GPTConfig.llama(**(SIZES | {"vocab_size": 1024}), logit_cap=15.0),
    "long": GPTConfig.llama(**(SIZES | {"context_length": 128})),
    "wide heads": GPTConfig.gpt2(**SIZES, head_dim=24),
    "narrow heads": GPTConfig.llama(**SIZES, n_kv_head=2, head_dim=8, qk_norm=True),
    "deep": GPTConfig.llama(**(SIZES | {"n_layer": 8, "n_embd": 96})),
}


class RandomText:
    def __init__(self, config):
        self.config = config

    def batch(self, step, batch_size):
        torch.manual_seed(step)
        text = torch.randint(self.config.vocab_size, (batch_size, self.config.context_length + 1))
        return text[:, :-1], text[:, 1:]


def measured_peak(config, train):
    """Bytes that PyTorch's allocator has handed out at most, while a model is made and trained."""
    gc.collect()  # what an earlier run left behind would be given back, and counted, during this one
    with profile(profile_memory=True) as recorded:
        Trainer(GPT(config), RandomText(config), config=train, callbacks=[]).fit()
    changes = [e.nbytes() for e in recorded.kineto_results.events() if e.name() == "[memory]"]
    return max(itertools.accumulate(changes))


def settings(**changes):
    return TrainConfig(**({"max_steps": 2, "batch_size": 8, "precision": "fp32", "device": "cpu"} | changes))


@pytest.mark.parametrize("position, width", [("learned", 12), ("rotary", 16)])
@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("mlp", ["gelu", "swiglu", "relu2"])
def test_parameters_are_counted_as_the_model_has_them(position, width, norm, mlp):
    for bias, qk_norm, tied, (heads, wide) in itertools.product(
        [False, True], [False, True], [False, True], [(1, None), (2, 6), (4, None)]
    ):
        config = GPTConfig(
            **{"vocab_size": 37, "context_length": 9, "n_layer": 2, "n_head": 4, "n_embd": width, "n_kv_head": heads},
            **{"head_dim": wide},
            **{"position": position, "norm": norm, "mlp": mlp},
            **{"bias": bias, "qk_norm": qk_norm, "tie_embedding": tied, "zero_init": bias, "logit_cap": 15.0},
        )
        assert estimate.num_parameters(config) == GPT(config).num_parameters(), config


def test_published_shapes_have_the_published_number_of_parameters():
    counted = {name: estimate.num_parameters(GPTConfig.preset(name)) for name in PRESETS}
    assert counted["gpt2-124m"] == 124_439_808
    assert counted["gpt3-175b"] == pytest.approx(175e9, rel=0.01)
    assert counted["smollm2-135m"] == pytest.approx(135e6, rel=0.01)


def test_looking_up_costs_nothing_and_scoring_the_vocabulary_does():
    tied, untied = GPTConfig.gpt2(**SIZES), GPTConfig.gpt2(**SIZES, tie_embedding=False)
    assert estimate.flops_per_token(tied) == estimate.flops_per_token(untied)
    larger = tied.replace(vocab_size=129)
    assert estimate.flops_per_token(larger) - estimate.flops_per_token(tied) == 6 * tied.n_embd
    wider = tied.replace(head_dim=32)
    matrices = estimate.num_parameters(wider) - estimate.num_parameters(tied)
    attention = 12 * tied.n_layer * tied.context_length * (wider.n_head * 32 - tied.n_embd)
    assert estimate.flops_per_token(wider) - estimate.flops_per_token(tied) == 6 * matrices + attention
    longer = tied.replace(context_length=33)
    attention_alone = 12 * tied.n_layer * tied.n_embd  # the table of positions grew as well
    assert estimate.flops_per_token(longer) - estimate.flops_per_token(tied) == attention_alone


def test_attention_is_a_small_part_of_a_large_model():
    config = GPTConfig.preset("gpt3-175b")
    per_parameter = estimate.flops_per_token(config) / estimate.num_parameters(config)
    assert 6 < per_parameter < 6.2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", SHAPES)
def test_activations_are_what_autograd_keeps(name, precision):
    config, train = SHAPES[name], settings(precision=precision)
    model, kept = GPT(config).train(), {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = tensor  # alive, so that no other tensor gets its place
        return tensor

    idx, targets = RandomText(config).batch(0, train.batch_size)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        model(idx, targets)
    found = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    memory = estimate.training_memory(config, train)
    assert (
        memory.copies + memory.activations + memory.logits - 2 * 4 * idx.numel() * config.vocab_size
        == pytest.approx(found, rel=0.05)
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("batch_size", [2, 16])
@pytest.mark.parametrize("name", SHAPES)
def test_the_peak_of_a_run_is_foretold(name, batch_size, precision):
    train = settings(batch_size=batch_size, precision=precision)
    tensors = estimate.training_memory(SHAPES[name], train).tensors
    assert tensors / 1.25 <= measured_peak(SHAPES[name], train) <= 1.05 * tensors


def test_gradients_that_wait_for_more_batches_are_counted():
    train = settings(grad_accum_steps=2, batch_size=2)
    tensors = estimate.training_memory(SHAPES["deep"], train).tensors
    assert 0.95 * tensors <= measured_peak(SHAPES["deep"], train) <= 1.05 * tensors


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["llama", "long", "relu2", "deep"])
def test_blocks_computed_again_keep_their_inputs_alone(name, precision):
    train, config = settings(batch_size=16, precision=precision), SHAPES[name]
    again = train.replace(activation_checkpointing=True)
    whole, memory = estimate.training_memory(config, train), estimate.training_memory(config, again)
    assert memory.tensors / 1.25 <= measured_peak(config, again) <= 1.05 * memory.tensors
    assert memory.activations < whole.activations
    assert memory.weights == whole.weights


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("name", ["llama", "gpt2", "grouped", "relu2", "deep", "narrow heads"])
def test_the_peak_of_a_run_with_muon_is_foretold(name, batch_size, precision):
    if (precision, batch_size) == ("bf16", 1) and not has_fast_bf16(torch.device("cpu")):
        pytest.skip(
            "without instructions for bf16 PyTorch makes its products in fp32, which this small run's peak shows"
        )
    train = settings(batch_size=batch_size, precision=precision, optimizer="muon")
    memory = estimate.training_memory(SHAPES[name], train)
    assert (memory.step > 0) == (batch_size == 1)  # a large batch leaves room for it
    assert memory.tensors / 1.25 <= measured_peak(SHAPES[name], train) <= 1.05 * memory.tensors


def test_one_moment_is_enough_for_the_matrices_that_muon_moves():
    config = SHAPES["llama"]
    adamw, muon = (estimate.training_memory(config, settings(optimizer=name)).optimizer for name in ("adamw", "muon"))
    matrices = sum(p.numel() for p in GPT(config).blocks.parameters() if p.dim() == 2)
    assert adamw == 8 * GPT(config).num_parameters()
    assert adamw - muon == 4 * matrices


def test_on_a_gpu_attention_keeps_no_weights_and_norms_are_in_fp32():
    cpu, gpu = (
        estimate.block_activations(SHAPES["long"], settings(precision="bf16", device=name)) for name in ("cpu", "cuda")
    )
    assert cpu["weights of attention"] == 2 * 4 * 128 and gpu["weights of attention"] == 0
    assert gpu["norms"] > cpu["norms"]
    half, whole = (
        estimate.training_memory(SHAPES["long"], settings(precision=name, device="cuda")) for name in ("fp16", "tf32")
    )
    assert half.activations < whole.activations and half.gaps == whole.gaps == 0


def test_memory_prints_what_it_is_for():
    text = str(estimate.training_memory(GPTConfig.preset("gpt2-124m"), settings(batch_size=4)))
    rows = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert rows["weights"] == rows["gradients"] == "497.8 MB"
    assert rows["optimizer"] == "995.5 MB"
    assert "copies" not in rows and rows["total"].endswith("GB")
    assert [estimate.as_bytes(n) for n in (0, 999, 1000, 2.5e6, 999_950_000, 7e15)] == [
        *("0 B", "999 B", "1.0 kB", "2.5 MB", "1.0 GB", "7,000.0 TB")
    ]


@pytest.mark.parametrize("name", ["GPT-3 175B", "Chinchilla 70B", "PaLM 540B"])
def test_six_times_parameters_times_tokens_is_what_was_published(name):
    run = estimate.published_runs()[name]
    assert estimate.training_flops(run.parameters, run.tokens) == pytest.approx(run.flops, rel=0.05)


def test_published_hours_imply_a_believable_utilisation():
    timed = {name: run for name, run in estimate.published_runs().items() if run.device_hours}
    implied = {name: estimate.implied_utilisation(run) for name, run in timed.items()}
    low = implied.pop("Llama 3 8B")  # the card's round hours, with all that they hold besides the arithmetic
    assert 0.14 < low < 0.2
    assert len(implied) >= 6 and all(0.2 < share < 0.6 for share in implied.values()), implied
    assert estimate.published_runs()["PaLM 540B"].utilisation > implied["PaLM 540B"]  # pauses are in the hours


def test_utilisation_needs_hours():
    with pytest.raises(ValueError, match="GPT-3 175B was published without its hours"):
        estimate.implied_utilisation(estimate.published_runs()["GPT-3 175B"])


def test_the_bill_of_a_published_run_is_about_what_was_paid():
    run = estimate.published_runs()["GPT-2 124M (llm.c)"]
    bill = estimate.bill(run.parameters, run.tokens, run.accelerator, estimate.implied_utilisation(run), count=8)
    assert bill.device_hours == pytest.approx(run.device_hours)
    assert bill.hours == pytest.approx(1.5)
    assert bill.usd == pytest.approx(run.usd, rel=0.25)


def test_a_bill_says_what_cannot_be_done_on_one_device():
    bill = estimate.bill(175e9, 300e9, "h100", count=1024)
    assert bill.memory == 16 * 175e9
    assert bill.devices_needed == 35
    assert bill.usd == pytest.approx(bill.device_hours * 3.99)
    for part in ("3.15e+23 operations", "9.0 days", "2.8 TB", "35 devices", "RunPod"):
        assert part in str(bill)
    assert "1 device at least" in str(estimate.bill(1e6, 1e6, "t4"))


def test_a_device_of_your_own_can_be_billed():
    mine = dataclasses.replace(estimate.accelerators()["rtx-4090"], usd_per_hour=0.0, price="it stands under my desk")
    assert estimate.bill(1e8, 1e9, mine).usd == 0


@pytest.mark.parametrize(
    "values, message",
    [
        ((1e9, 1e9, "h10"), "there is no accelerator 'h10'. Did you mean 'h100'?"),
        ((1e9, 1e9, "t4", 40), "utilisation=40 is not a share of the peak"),
        ((1e9, 0, "t4"), "tokens=0"),
        ((1e9, 1e9, "t4", 0.4, 0), "count=0"),
    ],
)
def test_what_cannot_be_billed_says_why(values, message):
    with pytest.raises(ValueError) as error:
        estimate.bill(*values)
    assert message in str(error.value)


def test_every_figure_has_a_source_and_every_run_an_accelerator_that_is_listed():
    known = estimate.accelerators()
    assert {"a100", "h100", "v100", "t4", "l4", "rtx-4090", "tpu-v4", "tpu-v5e", "tpu-v5p"} <= known.keys()
    assert all(device.source and "20" in device.price and device.usd_per_hour > 0 for device in known.values())
    runs = estimate.published_runs().values()
    assert all("20" in run.source for run in runs)
    assert all(run.accelerator in known for run in runs if run.device_hours)


def test_twenty_tokens_a_parameter_are_what_chinchilla_was_given():
    run = estimate.published_runs()["Chinchilla 70B"]
    assert estimate.chinchilla_tokens(run.parameters) == run.tokens
