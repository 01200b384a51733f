"""A classifier as one folder, which `AutoModelForSequenceClassification` of `transformers` opens with equal logits.

With the mean in place of the last token, `transformers` has no model that computes the same, and config.json names none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from minigpt.config import GPTConfig
from minigpt.files import as_text, write_atomically
from minigpt.finetune.classifier import Classifier
from minigpt.finetune.lora import lora_layers
from minigpt.interop import build, check_floats, from_hf_weights, to_hf_config, to_hf_weights
from minigpt.tokenizer import Tokenizer
from minigpt.tokenizer_files import load_tokenizer

SCORE = "score.weight"


def save_classifier(
    folder: str | PathLike,
    classifier: Classifier,
    tokenizer: Tokenizer,
    classes: Sequence[str],
    training: dict[str, Any] | None = None,
) -> None:
    """Write the model, its tokenizer, the names of its `classes` and, as training.json, how it came to be.

    Raises:
        ValueError: not one name for each class, a shape that `transformers` does not have, or a quantized body.
        OSError: the disk is full; what was saved before is kept.
    """
    config, count = classifier.gpt.config, classifier.score.out_features
    if len(classes) != count or len(set(classes)) != count:
        raise ValueError(
            f"there are {len(set(classes))} names for {count} classes; give each a name of its own, in order."
        )
    check_floats(classifier.gpt, "a classifier's folder")
    if any(lora_layers(classifier)):
        raise ValueError(
            "the classifier has adapters: merge_lora(classifier) first, or save_adapter(classifier, folder)."
        )
    theirs = to_hf_config(config)
    family = theirs["architectures"][0].removesuffix("LMHeadModel").removesuffix("ForCausalLM")
    theirs["architectures"] = [f"{family}ForSequenceClassification"]
    if classifier.pooling == "mean":
        del theirs["architectures"], theirs["model_type"]
    fields = theirs | {
        "minigpt": config.to_dict(),
        "pooling": classifier.pooling,
        "id2label": dict(enumerate(classes)),
        "label2id": {name: number for number, name in enumerate(classes)},
        "pad_token_id": tokenizer.eos_id,
        "dtype": "float32",
    }
    weights = to_hf_weights(config, classifier.gpt.state_dict()) | {SCORE: classifier.score.weight}
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in weights.items()}
    texts = {"config.json": json.dumps(fields, indent=2), **tokenizer.to_files()}
    if training is not None:
        texts["training.json"] = json.dumps(training, indent=2)
    files = {name: as_text(text) for name, text in texts.items()}
    files["model.safetensors"] = lambda path: save_file(weights, path, metadata={"format": "pt"})
    write_atomically(Path(folder), files)


def load_classifier(folder: str | PathLike) -> tuple[Classifier, Tokenizer, list[str]]:
    """The classifier, in evaluation mode, its tokenizer and the names of its classes.

    Raises:
        FileNotFoundError: no such folder, or a file is missing from it.
        ValueError: a damaged file, or a model that is no classifier of ours.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}; save_classifier writes a folder that has one.")
    try:
        fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"the classifier in {folder} is damaged or half-written ({error}); save it again.") from error
    if SCORE not in weights or not isinstance(fields, dict) or not {"minigpt", "pooling", "id2label"} <= fields.keys():
        raise ValueError(
            f"the model in {folder} is no classifier of ours: {SCORE}, or minigpt, pooling or id2label of config.json, is not "
            "there. load_checkpoint opens models that write."
        )
    try:
        config, score = GPTConfig.make(**fields["minigpt"]), weights.pop(SCORE)
        names = [fields["id2label"][str(number)] for number in range(len(fields["id2label"]))]
        if score.shape != (len(names), config.n_embd):
            raise KeyError(f"{SCORE} has shape {tuple(score.shape)} for {len(names)} classes of width {config.n_embd}")
        classifier = Classifier(build(config, from_hf_weights(config, weights)), len(names), fields["pooling"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"config.json and the weights in {folder} do not belong together ({error}); save again."
        ) from error
    classifier.score.weight.data.copy_(score)
    return classifier.eval(), load_tokenizer(folder), names
