import html
import re

import pytest
import torch
from conftest import FAMILIES, make_model
from matplotlib.figure import Figure
from test_widgets import Screen, assert_is_seen_without_a_front_end
from test_widgets import plain as without_tags

from minigpt import CharTokenizer, generate
from minigpt.finetune.lora import add_lora
from minigpt.lab import quantization_viewer, widgets
from minigpt.lab.picture import Picture
from minigpt.lab.quantization_viewer import QuantizationViewer
from minigpt.lab.rounded_copy import Choice, RoundedCopy
from minigpt.quantize import absmax, quantize

TEXT = "the cat sat on <b>a</b> mat.\n" * 6
CHARACTERS = CharTokenizer.train([TEXT])
SHAPE = {"vocab_size": CHARACTERS.vocab_size, "n_embd": 64, "n_hidden": 96, "context_length": 32}


def plain(part):
    return re.sub(r"</?mark\b[^>]*>", "", without_tags(part.value))


def model_of(family="llama", **changes):
    return make_model(FAMILIES[family].replace(**SHAPE | changes))


@pytest.fixture
def model():
    return model_of()


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take most of the time and are looked at elsewhere."""
    monkeypatch.setattr(quantization_viewer, "draw", lambda *arguments, **options: Picture(b"", "no picture"))


@pytest.fixture
def viewer(model, undrawn):
    return QuantizationViewer(model, CHARACTERS, "the c", TEXT)


def loss_of(model):
    ids = torch.tensor(CHARACTERS.encode(TEXT))
    most = (len(ids) - 1) // 32 * 32
    with torch.no_grad():
        return model(ids[:most].view(-1, 32), ids[1 : most + 1].view(-1, 32))[1].item()


def rounded_by_hand(model, names, *choice):
    """A model whose matrices of these names are what `absmax` makes of them."""
    state = model.state_dict() | {
        f"{n}.weight": absmax(model.state_dict()[f"{n}.weight"], *choice).dequantize() for n in names
    }
    if model.config.tie_embedding:
        state["head.weight"] = state["token_embedding.weight"]
    made = type(model)(model.config)
    made.load_state_dict(state)
    return made.eval()


def shares(viewer):
    return [value for _, value in viewer.share.options]


# The copy


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_computes_with_rounded_matrices_and_with_its_own_again_and_the_model_never_changes(family):
    model = model_of(family)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rounded = RoundedCopy(model)
    every, idx = list(rounded.weights), torch.arange(16)[None]
    with torch.no_grad():
        for names, choice in (
            (every[1:2], (2, "tensor", 0.7)), (every, (4, "row", 1.0)), (every[2:], (3, 8, 1.0)), ([], (2, "row", 1.0)),
        ):  # fmt: skip
            rounded.round(names, Choice(*choice))
            assert torch.equal(rounded.model(idx)[0], rounded_by_hand(model, names, *choice)(idx)[0])
            assert rounded.rounded.keys() == set(names)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_can_be_rounded_a_tied_table_once_and_no_norm_no_bias_and_no_positions(family):
    model = model_of(family)
    rounded = RoundedCopy(model)
    expected = {p.data_ptr() for n, p in model.named_parameters() if p.dim() == 2 and "position" not in n}
    assert {model.get_parameter(f"{name}.weight").data_ptr() for name in rounded.weights} == expected
    assert len(rounded.weights) == len(expected) and ("head" in rounded.weights) != model.config.tie_embedding


def test_only_what_another_choice_asks_for_is_rounded_again(model, monkeypatch):
    rounded, calls = RoundedCopy(model), []
    monkeypatch.setattr("minigpt.lab.rounded_copy.absmax", lambda *given: calls.append(given) or absmax(*given))
    names = list(rounded.weights)
    rounded.round(names[:2], Choice(4, "row", 1.0))
    rounded.round(names[:3], Choice(4, "row", 1.0))
    assert len(calls) == 3
    rounded.round(names[:3], Choice(3, "row", 1.0))
    assert len(calls) == 6


def test_where_a_matrix_cannot_be_rounded_so_nothing_is_changed(model):
    rounded = RoundedCopy(model)
    names = sorted(rounded.weights, key=lambda name: rounded.weights[name].size(1) % 64)  # those that can come first
    rounded.round(names[:1], Choice(4, "row", 1.0))
    before = {name: matrix.clone() for name, matrix in rounded.matrices.items()}
    with pytest.raises(ValueError, match="groups of 64 do not divide a row of 96 weights"):
        rounded.round(names, Choice(4, 64, 1.0))
    assert all(torch.equal(rounded.matrices[name], before[name]) for name in names)
    assert rounded.rounded.keys() == set(names[:1]) and rounded.bits_per_weight() == 4 + 16 / 64


def test_bits_and_megabytes_count_the_scales_and_what_is_not_rounded(model):
    rounded = RoundedCopy(model)
    assert rounded.megabytes() == 4 * model.num_parameters() / 1e6
    up = rounded.weights["blocks.0.mlp.up"]
    for share, scales in (("tensor", 1), ("row", 96), (32, 192)):
        rounded.round(["blocks.0.mlp.up"], Choice(3, share, 1.0))
        bits = 3 * up.numel() + 16 * scales
        assert rounded.bits_per_weight() == pytest.approx(bits / up.numel())
        assert rounded.megabytes() == pytest.approx((4 * (model.num_parameters() - up.numel()) + bits / 8) / 1e6)
    rounded.round(list(rounded.weights), Choice(8, "row", 1.0))
    rows, most = (
        sum(weight.size(0) for weight in rounded.weights.values()),
        sum(w.numel() for w in rounded.weights.values()),
    )
    assert rounded.bits_per_weight() == pytest.approx(8 + 16 * rows / most)


def test_a_model_that_is_quantized_or_has_adapters_or_is_broken_is_told(model):
    with pytest.raises(ValueError, match=r"in 8 bits already; pass the model that it was made from, or .*dequantize"):
        RoundedCopy(quantize(model))
    with torch.no_grad():
        model.blocks[1].mlp.up.weight[2, 3] = torch.nan
    with pytest.raises(ValueError, match=r"blocks.1.mlp.up holds 1 numbers that are not finite"):
        RoundedCopy(model)
    adapted = model_of()
    add_lora(adapted, rank=2)
    with pytest.raises(ValueError, match=r"merge_lora\(model\) first"):
        RoundedCopy(adapted)


# What is said


def test_the_numbers_are_those_of_a_model_rounded_by_hand(model, viewer):
    viewer.bits.value, viewer.clip.value, viewer.share.value = 3, 0.8, 32
    name = viewer.matrix.value
    weight = model.state_dict()[f"{name}.weight"]
    rounded = absmax(weight, 3, 32, 0.8)
    error = (rounded.dequantize() - weight).square().mean().sqrt() / weight.square().mean().sqrt()
    before, after = loss_of(model), loss_of(rounded_by_hand(model, [name], 3, 32, 0.8))
    assert plain(viewer.numbers) == (
        f"The error of {name} is {error:.1%} of its weights (root mean squares); "
        f"{(rounded.q == 0).float().mean():.1%} become 0."
        f"A weight of this matrix takes 3.50 bits with its part of the scales, the model {viewer.copy.megabytes():.2f} MB, "
        f"not {4 * model.num_parameters() / 1e6:.2f}."
        f"On 160 tokens of the text the loss is {after:.3f} nats per token, not {before:.3f}, "
        f"{abs(after - before):.3f} {'more' if after > before else 'less'}."
    )
    viewer.everywhere.value = True
    every = rounded_by_hand(model, list(viewer.copy.weights), 3, 32, 0.8)
    assert viewer.now.loss == pytest.approx(
        loss_of(every), abs=1e-5
    ) and "A weight of all matrices takes 3.50 bits" in plain(viewer.numbers)


def test_both_texts_are_written_greedily_and_marked_from_where_they_differ(model, viewer):
    viewer.bits.value = 2
    viewer.everywhere.value = True
    ids = CHARACTERS.encode("the c")
    texts = [
        CHARACTERS.decode(generate(one, [ids], max_new_tokens=40, temperature=0)[0])
        for one in (model, rounded_by_hand(model, list(viewer.copy.weights), 2, "row", 1.0))
    ]
    assert texts[0] != texts[1] and len(texts[0]) == 45
    assert plain(viewer.texts) == f"As it was, the model writes:{texts[0]}Rounded, it writes:{texts[1]}"
    marked = [html.unescape(one) for one in re.findall(r"<mark[^>]*>(.*?)</mark>", viewer.texts.value, re.DOTALL)]
    assert len(marked) == 2 and marked[0][0] != marked[1][0]
    heads = [text.removesuffix(end) for text, end in zip(texts, marked)]
    assert heads[0] == heads[1] and "<b>a</b>" not in viewer.texts.value


def test_equal_texts_have_no_mark(undrawn):
    sure = model_of()
    with torch.no_grad():
        for block in sure.blocks:
            block.attention.proj.weight.zero_()  # what this matrix is rounded to changes nothing
    viewer = QuantizationViewer(sure, CHARACTERS, "the c", TEXT, {"matrix": "blocks.0.attention.proj", "bits": 2})
    assert "The model writes the same." in plain(viewer.texts) and "<mark" not in viewer.texts.value
    assert "is 0.0% of its weights" in plain(viewer.numbers) and "100.0% become 0" in plain(viewer.numbers)


# The controls


def test_only_groups_that_divide_the_rows_are_offered_and_the_next_smaller_one_is_taken(undrawn):
    viewer = QuantizationViewer(model_of(n_hidden=128), CHARACTERS, "the c", TEXT, {"matrix": "blocks.0.mlp.proj"})
    assert shares(viewer) == ["tensor", "row", 64, 32]  # 128 is the whole row
    viewer.share.value = 64
    viewer.matrix.value = "blocks.0.mlp.up"
    assert shares(viewer) == ["tensor", "row", 32] and viewer.share.value == 32
    viewer.share.value = "tensor"
    viewer.matrix.value = "blocks.1.mlp.proj"
    assert shares(viewer) == ["tensor", "row", 64, 32] and viewer.share.value == "tensor"
    viewer.share.value = 64
    viewer.everywhere.value = True
    assert shares(viewer) == ["tensor", "row", 32] and viewer.share.value == 32
    assert [rounded.share for rounded in viewer.copy.rounded.values()] == [32] * len(viewer.copy.weights)
    viewer.everywhere.value = False
    assert viewer.copy.rounded.keys() == {"blocks.1.mlp.proj"}


def test_each_move_is_answered_once_and_puts_the_matrix_before_back(model, viewer, monkeypatch):
    calls, update = [], viewer.update
    monkeypatch.setattr(viewer, "update", lambda: calls.append(1) or update())
    viewer.share.value = 32
    viewer.matrix.value = "blocks.1.mlp.proj"
    viewer.everywhere.value = True
    viewer.matrix.value = "token_embedding"
    viewer.everywhere.value = False
    assert len(calls) == 5 and viewer.copy.rounded.keys() == {"token_embedding"}
    assert "The error of token_embedding" in plain(viewer.numbers)
    assert "token_embedding (and head)" in viewer.matrix.options[-1][0]


def test_controls_start_where_they_are_asked_to(model, undrawn):
    start = {"matrix": "blocks.1.mlp.gate", "bits": 2, "share": 32, "clip": 0.6, "everywhere": True}
    viewer = QuantizationViewer(model, CHARACTERS, "the c", TEXT, start)
    found = {name: getattr(viewer, name).value for name in start}
    assert found == start and viewer.now.loss == pytest.approx(
        loss_of(rounded_by_hand(model, list(viewer.copy.weights), 2, 32, 0.6)), abs=1e-5
    )


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ({"bits": 9}, "bits=9; choose one of 2, 3, 4, 5, 6, 7, 8"),
        ({"clip": 0.2}, "clip=0.2; choose one of 0.5, "),
        ({"share": 7}, "share=7; choose one of tensor, row, 128, 64, 32"),
        ({"matrix": "blocks.9.mlp.up"}, "matrix='blocks.9.mlp.up'; choose one of blocks.0"),
        ({"rows": 3}, "'rows'; it may have matrix, bits, share, clip, everywhere"),
    ],
)
def test_a_start_that_no_control_has_is_told(model, start, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        QuantizationViewer(model, CHARACTERS, "the c", TEXT, start)


@pytest.mark.parametrize(
    ("prompt", "text", "words"),
    [("", TEXT, "the prompt is empty"), ("the ?", TEXT, r"'\?'"), ("the c", "t", "fewer than two tokens"),
     ("the c" * 20, TEXT, "context_length is 32")],
)  # fmt: skip
def test_a_prompt_and_a_text_that_cannot_be_read_are_told_in_the_widget_and_in_the_still_picture(
    model, monkeypatch, prompt, text, words
):
    viewer = QuantizationViewer(model, CHARACTERS, prompt, text)
    assert re.search(words, plain(viewer.note)) and not viewer.numbers.value + viewer.texts.value
    monkeypatch.setattr(widgets, "display", screen := Screen())
    quantization_viewer.quantization_viewer(model, CHARACTERS, prompt, text)
    assert_is_seen_without_a_front_end(screen.shown[0], words)


def test_the_text_is_read_up_to_a_number_of_tokens_that_is_answered_at_once(model, undrawn, monkeypatch):
    monkeypatch.setattr(quantization_viewer, "MOST_TOKENS", 70)
    viewer = QuantizationViewer(model, CHARACTERS, "the c", TEXT)
    assert "On 64 tokens of the text" in plain(viewer.numbers)


# What is drawn


@pytest.mark.parametrize("share", ["tensor", "row", 32])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_weights_that_are_shown_lie_with_the_largest_and_are_rounded_to_the_levels_that_are_shown(
    viewer, bits, share
):
    viewer.bits.value, viewer.share.value = bits, share
    weight, rounded = viewer.copy.weights[viewer.matrix.value], viewer.copy.rounded[viewer.matrix.value]
    weights, levels = viewer.shown()
    assert abs(weights).max() == weight.abs().max() and len(weights) == {"tensor": weight.numel(), "row": 64}.get(
        share, 32
    )
    assert len(levels) == (255 if bits == 8 else 2**bits) and (levels[1:] > levels[:-1]).all()
    row = int(weight.abs().argmax()) // 64
    used = (
        rounded.dequantize()[row]
        if share != 32
        else rounded.dequantize().view(-1, 32)[int(weight.abs().argmax()) // 32]
    )
    assert abs(used[:, None] - torch.tensor(levels)).min(dim=1).values.max() < 1e-6


def test_another_choice_makes_another_picture_and_all_of_it_is_drawn(model, monkeypatch):
    figures = []

    def draw(paint, *arguments, **options):
        paint(figures.append(Figure()) or figures[-1])
        return widgets.draw(paint, *arguments, **options)

    monkeypatch.setattr(quantization_viewer, "draw", draw)
    viewer = QuantizationViewer(model, CHARACTERS, "the c", TEXT)
    levels, errors, bar = figures[-1].axes
    assert len(levels.collections[0].get_segments()) == 16 and levels.get_ylabel() == "count"
    error = (
        viewer.copy.error(viewer.matrix.value).abs() / viewer.copy.weights[viewer.matrix.value].square().mean().sqrt()
    )
    shown = torch.tensor(errors.images[0].get_array().data)
    corner = int(viewer.copy.weights[viewer.matrix.value].abs().argmax()) // 64 // 64 * 64
    assert torch.equal(shown, error[corner : corner + 64])
    before = viewer.image.value
    viewer.bits.value = 3
    assert viewer.image.value not in (b"", before) and len(figures[-1].axes[0].collections[0].get_segments()) == 8
    assert not figures[-1].texts[0].get_text()


def test_a_viewer_is_seen_without_a_front_end_with_all_that_it_says_and_its_words_name_no_measured_number(
    model, monkeypatch
):
    said = []

    def draw(paint, *arguments, **options):
        paint(figure := Figure())
        said.append(figure.texts[0].get_text() if figure.texts else "")
        return widgets.draw(paint, *arguments, **options)

    monkeypatch.setattr(widgets, "display", screen := Screen())
    monkeypatch.setattr(quantization_viewer, "draw", draw)
    assert (
        quantization_viewer.quantization_viewer(model, CHARACTERS, "the c", TEXT, {"bits": 3, "everywhere": True})
        is None
    )
    words = r"^The 8 levels for the weights of a row of blocks\.0\.attention\.qkv\. Quantization viewer\. Histogram of weights"
    assert_is_seen_without_a_front_end(screen.shown[0], words)
    assert re.search(r"MB, not [\d.]+\.\nOn 160 tokens of the text the loss is", said[-1]) and "▸" in said[-1]
    assert not re.search(r"\d\.\d", screen.shown[0][0]["text/plain"].replace("blocks.0", ""))
