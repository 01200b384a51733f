"""The widgets as a learner meets them: in JupyterLab, in a real browser, with clicks and keys.

Skipped where no Chromium, Chrome or Edge is installed; `-k "not browser"` leaves them out. What follows an action comes
from the kernel, some time later: every look at the page waits for what it expects (`expect`, `wait_for`).
"""

import re
import shutil

import nbformat
import pytest
from lab_page import PATIENCE, browse, find_browser, open_notebook, run_all_cells, serve

from minigpt.course import NOTEBOOKS

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
expect.set_options(timeout=PATIENCE)
pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium, Chrome or Edge is installed")

TINY = """
import numpy as np
import torch
from minigpt import GPT, CharTokenizer, GPTConfig, TokenData, TrainConfig, Trainer
from minigpt.lab.widgets import LiveCurve, attention_viewer, playground
_ = torch.manual_seed(0)
text = "the cat sat on the mat. " * 40
tokenizer = CharTokenizer.train([text])
model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, n_layer=2, n_head=2, n_embd=16, context_length=32))
"""
TRAIN = """
data = TokenData(np.array(tokenizer.encode(text)), 8)
endless = TrainConfig(max_steps=10**6, batch_size=4, eval_every=20, eval_batches=1, precision="fp32")
history = Trainer(model, data, data, endless, callbacks=[LiveCurve(lambda: "what it writes")]).fit()
"""
CHAT = """
import time
from pathlib import Path
from minigpt.lab.chat_window import chat_window
def reply(model, tokenizer, messages, **options):
    yield f"{model} has "
    while "seed" in options and not Path("go on").exists():  # it is asked in the window, not for the still picture
        time.sleep(0.05)
    yield f"heard {len(messages)} turns"
chat_window({"before": ("base", None), "after": ("tuned", None)}, "Hello!", reply=reply)
"""
JUDGE = """
import numpy as np
from minigpt.lab.confidence_viewer import confidence_viewer
def predict(texts):
    good = np.array([1 / (1 + np.exp(text.count("dull") - text.count("fine"))) for text in texts])
    return np.stack([1 - good, good], axis=1)
confidence_viewer(predict, ["bad", "good"], "a fine film")
"""
OVERFIT = """
from minigpt.lab.overfitting_explorer import overfitting_explorer
steps, rises = list(range(0, 100, 10)), [4.0, 2.0, 1.5, 1.52, 1.4, 1.45, 1.47, 1.46, 1.8, 2.5]
sizes, parts, rates = {64: 123_456, 128: 812_345}, (0.125, 0.25, 1.0), (0.0, 0.2)
rows = [
    {"n_embd": n_embd, "parameters": sizes[n_embd], "share": share, "dropout": dropout, "steps": steps,
     "train": [4 / (1 + i) for i in range(10)], "val": [loss + dropout - 0.1 * share - n_embd / 1e4 for loss in rises]}
    for n_embd in sizes for share in parts for dropout in rates if (n_embd, share) != (64, 1.0)
]
overfitting_explorer(rows, {"n_embd": 64, "share": 0.125, "dropout": 0.0, "patience": 1})
"""
QUANTIZE = """
from minigpt.lab.quantization_viewer import quantization_viewer
model = GPT(model.config.replace(n_embd=64, n_hidden=96))
quantization_viewer(model, tokenizer, "the cat", text)
"""
AFTERWARDS = """print("stopped early:", history.stopped_early, "after", len(history.rows))"""
CUT_OFF = "labels => labels.filter(one => one.scrollWidth > one.clientWidth).map(one => one.textContent)"
PIXELS = """image => {
    if (!image.complete || !image.naturalWidth) return "";
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL();
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("root")) as lab:
        yield lab


@pytest.fixture(scope="module")
def profile(lab):
    with browse(lab) as profile:
        yield profile


@pytest.fixture
def page(lab, profile):
    page = profile.new_page()
    yield page
    print(page.locator("body").inner_text())  # shown when the test failed
    questions = page.locator(".jp-Dialog, .Toastify__toast").all_text_contents()
    page.close()
    assert questions == []
    assert lab.asked_outside == []


@pytest.fixture
def run(page, lab):
    """Opens a notebook of these cells on the page and runs it, with a kernel of its own; returns its path."""

    def run(*cells):
        path = f"{len(list(lab.root.iterdir()))}.ipynb"
        lab.write(path, *cells)
        open_notebook(page, lab, path)
        run_all_cells(page)
        return path

    yield run
    for session in lab.ask("/api/sessions"):
        lab.ask(f"/api/sessions/{session['id']}", method="DELETE")  # and with it what a failed test left running


def only_picture(page):
    pictures = page.locator(".jp-OutputArea-output img")
    expect(pictures).to_have_count(1)  # the widget's, without the still one beside it
    pictures.wait_for()
    return pictures


def no_label_is_cut_off(page):
    labels = page.locator(".widget-label:visible, .widget-readout:visible")
    labels.first.wait_for()
    return labels.evaluate_all(CUT_OFF) == []


def changes(picture, action):
    """Whether an action makes another picture; it never returns where it does not."""
    page, image = picture.page, picture.element_handle()
    before = page.wait_for_function(PIXELS, arg=image).json_value()
    action()
    page.wait_for_function(f"([image, before]) => !['', before].includes(({PIXELS})(image))", arg=[image, before])
    return True


def press_right(page, slider):
    page.locator(".widget-hslider").filter(has_text=slider).locator(".noUi-handle").press("ArrowRight")


def test_the_curve_moves_while_a_cell_trains_and_stop_ends_it_after_the_current_update(page, run):
    run(TINY, TRAIN, AFTERWARDS)
    picture, label = only_picture(page), page.locator(".widget-label").filter(has_text="update")
    label.filter(has_text=re.compile(r"update \d+ of 1000000, loss")).wait_for()
    said = label.text_content()
    assert changes(picture, lambda: label.filter(has_not_text=said).wait_for())
    page.get_by_text("what it writes", exact=True).wait_for()

    stop = page.get_by_role("button", name="Stop")
    stop.click()
    label.filter(has_text=re.compile(r"^stopped after \d+ updates$")).wait_for()
    updates = re.search(r"\d+", label.text_content())[0]
    page.get_by_text(f"stopped early: True after {updates}", exact=True).wait_for()
    expect(stop).to_be_disabled()
    only_picture(page)


def test_the_playground_follows_sliders_and_prompt_and_writes(page, run):
    run(TINY, 'playground(model, tokenizer, prompt="the cat")')
    picture, prompt = only_picture(page), page.get_by_label("Prompt")
    assert no_label_is_cut_off(page)
    assert changes(picture, lambda: press_right(page, "temperature"))
    assert changes(picture, lambda: prompt.fill("on the m"))

    page.get_by_role("button", name="Write").click()
    page.locator(".widget-html").filter(has_text=re.compile("^on the m.{100}")).wait_for()

    prompt.fill("")
    page.get_by_text("The prompt is empty").wait_for()
    prompt.fill("the ?")
    page.get_by_text("'?'").wait_for()


def test_the_attention_viewer_shows_each_layer_and_head_over_the_learners_own_text(page, run):
    run(TINY, 'attention_viewer(model, tokenizer, "the cat sat")')
    overview, chosen = (page.locator(".jp-OutputArea-output img").nth(i) for i in range(2))
    assert changes(chosen, lambda: press_right(page, "head"))
    assert changes(overview, lambda: press_right(page, "layer"))

    def write():
        page.get_by_label("Text").fill("on the mat.")
        page.get_by_label("Text").press("Enter")

    assert changes(chosen, write)


def test_in_the_chat_window_one_talks_with_both_models_by_button_and_by_enter(page, lab, run):
    run(CHAT)
    send = page.get_by_role("button", name="Send")
    send.click()
    page.get_by_text("base has …").wait_for()
    expect(send).to_be_disabled()
    (lab.root / "go on").touch()
    page.get_by_text("tuned has heard 1 turns").wait_for()
    page.get_by_text("base has heard 1 turns").wait_for()

    message = page.get_by_label("Message")
    expect(message).to_have_value("")
    expect(send).to_be_enabled()
    message.fill("And now?")
    message.press("Enter")
    page.get_by_text("tuned has heard 3 turns").wait_for()

    page.get_by_role("button", name="Start again").click()
    expect(page.get_by_text("has heard")).to_have_count(0)
    expect(message).to_have_value("Hello!")
    assert no_label_is_cut_off(page)
    message.fill("")
    send.click()
    page.get_by_text("The message is empty").wait_for()


def test_the_confidence_viewer_moves_its_bars_and_colours_while_one_types(page, run):
    run(JUDGE)
    page.get_by_text("0.731", exact=True).wait_for()
    expect(page.locator("span[title='+0.231']")).to_have_text(["fine"])
    page.get_by_label("Text").press_sequentially(", dull and dull")
    expect(page.locator("span[title='+0.231']")).to_have_text(["dull", "dull"])  # it has seen the last word
    expect(page.locator("span[title='-0.150']")).to_have_text(["fine"])
    page.get_by_text("without this word, bad would be less likely").wait_for()


def test_the_overfitting_explorer_follows_its_sliders_in_curves_and_in_words(page, run):
    run(OVERFIT)
    picture = only_picture(page)
    page.get_by_text("A patience of 1 ends the run after 30 of 90 updates and saves 67% of them").wait_for()
    assert no_label_is_cut_off(page)
    assert changes(picture, lambda: press_right(page, "Patience"))
    page.get_by_text("A patience of 2 ends the run after 60 of 90 updates").wait_for()
    assert changes(picture, lambda: press_right(page, "Dropout"))
    page.get_by_text("Width 64 (123 k parameters), 1/8 of the text, dropout 0.2").wait_for()
    assert changes(picture, lambda: press_right(page, "Text"))
    page.get_by_text("Width 64 (123 k parameters), 1/4 of the text, dropout 0.2").wait_for()
    assert changes(picture, lambda: press_right(page, "Text"))
    page.get_by_text("No such run was recorded. Move Parameters to 812 k, or Text to 1/8 or 1/4.").wait_for()
    assert changes(picture, lambda: press_right(page, "Parameters"))
    page.get_by_text("Width 128 (812 k parameters), all of the text, dropout 0.2").wait_for()


def test_the_quantization_viewer_follows_its_controls_in_pictures_numbers_and_texts(page, run):
    run(TINY, QUANTIZE)
    picture = only_picture(page)
    page.get_by_text("A weight of this matrix takes 4.25 bits").wait_for()
    assert no_label_is_cut_off(page)
    assert changes(picture, lambda: press_right(page, "Bits"))
    page.get_by_text("A weight of this matrix takes 5.25 bits").wait_for()
    assert changes(picture, lambda: page.get_by_label("One scale for").select_option("each 32 weights of a row"))
    page.get_by_text("A weight of this matrix takes 5.50 bits").wait_for()
    error = page.get_by_text("The error of blocks.0.attention.qkv is")
    before = error.inner_text()
    page.locator(".widget-hslider").filter(has_text="Clip").locator(".noUi-handle").press("ArrowLeft")
    error.filter(has_not_text=before).wait_for()
    assert changes(picture, lambda: page.get_by_label("Matrix").select_option("blocks.1.mlp.proj, 64 × 96"))
    page.get_by_text("The error of blocks.1.mlp.proj is").wait_for()
    page.get_by_label("all matrices so").check()
    page.get_by_text("A weight of all matrices takes 5.50 bits").wait_for()
    page.get_by_text("As it was, the model writes:").wait_for()


def test_a_saved_notebook_shows_what_its_widgets_showed_when_its_kernel_is_gone(page, lab, run):
    path = run(TINY, 'playground(model, tokenizer, prompt="the cat")')
    only_picture(page)
    for _ in range(10):  # JupyterLab saves by itself, too, and may have begun before the picture came
        with page.expect_response(lambda answer: path in answer.url and answer.request.method == "PUT"):
            page.keyboard.press("ControlOrMeta+s")
        if "ImageModel" in (lab.root / path).read_text(encoding="utf-8"):
            break
    shutil.copy(lab.root / path, lab.root / "again.ipynb")
    open_notebook(page, lab, "again.ipynb")
    only_picture(page)
    expect(page.get_by_label("Prompt")).to_have_value("the cat")


def test_the_stored_course_opens_with_its_still_pictures_and_asks_nothing(page, lab):
    first = NOTEBOOKS / "00_start_here.ipynb"
    shutil.copy(first, lab.root)
    open_notebook(page, lab, first.name)
    page.locator(".jp-RenderedImage img").first.wait_for(state="attached")
    expect(page.get_by_text("Error displaying widget")).to_have_count(0)
    assert nbformat.read(first, 4).metadata.kernelspec.name == "python3"
