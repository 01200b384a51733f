"""From a model that goes on with any text to one that does a job: classes, conversations, code, adapters."""

from minigpt.finetune.adapters import load_adapter, save_adapter
from minigpt.finetune.augmented import AugmentedData
from minigpt.finetune.chat import ChatData, add_chat_tokens, add_tokens, encode_answers, reply
from minigpt.finetune.classifier import Classifier, LabelledData, predict, read_features
from minigpt.finetune.classifier_files import load_classifier, save_classifier
from minigpt.finetune.lora import add_lora, freeze, merge_lora, trainable_parameters

__all__ = [
    "AugmentedData",
    "ChatData",
    "Classifier",
    "LabelledData",
    "add_chat_tokens",
    "add_lora",
    "add_tokens",
    "encode_answers",
    "freeze",
    "load_adapter",
    "load_classifier",
    "merge_lora",
    "predict",
    "read_features",
    "reply",
    "save_adapter",
    "save_classifier",
    "trainable_parameters",
]
