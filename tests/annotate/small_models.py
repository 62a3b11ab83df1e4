"""Models of transformers that tests make, with a tokenizer of a few words: small, with drawn weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEXT = "def class return import the mill wheel race water sluice weir buy cheap click offer casino bonus ( ) : = 0 1"


def tokenizer(folder: Path, length: int = 64) -> None:
    """A WordPiece tokenizer such as BERT's. Its words are listed: the library's trainer orders ties at random."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special, letters = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"], sorted({*TEXT} - {" "})
    words = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *TEXT.split()])
    made = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=length, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)  # fmt: skip


def bert(folder: Path, classifier: bool = False, seed: int = 0, **config: Any) -> Path:
    """A BERT of two layers."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    tokenizer(folder)
    torch.manual_seed(seed)
    shape = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    made = BertConfig(**shape, intermediate_size=64, max_position_embeddings=64, initializer_range=0.5, **config)
    (BertForSequenceClassification if classifier else BertModel)(made).save_pretrained(folder)
    return folder
