"""minigpt: from raw text to a GPT that you trained, fine-tuned, measured and served yourself."""

from minigpt.checkpoint import load_checkpoint, save_checkpoint
from minigpt.config import GPTConfig, SampleConfig, TrainConfig
from minigpt.corpus import load_corpus
from minigpt.corpus.batching import TokenData, pack
from minigpt.corpus.cleaning import clean
from minigpt.generate import generate, stream
from minigpt.history import History
from minigpt.model import GPT
from minigpt.quantize import quantize
from minigpt.tokenizer import BPETokenizer, CharTokenizer
from minigpt.tokenizer_files import load_tokenizer
from minigpt.trainer import Trainer

__version__ = "0.1.0"
__all__ = [
    "GPT",
    "BPETokenizer",
    "CharTokenizer",
    "GPTConfig",
    "History",
    "SampleConfig",
    "TokenData",
    "TrainConfig",
    "Trainer",
    "clean",
    "generate",
    "load_checkpoint",
    "load_corpus",
    "load_tokenizer",
    "pack",
    "quantize",
    "save_checkpoint",
    "stream",
]
