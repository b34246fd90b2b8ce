"""Models of random weights in the two sizes that are measured, as folders of Hugging Face files."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from streamtok.model.load import read_config, tensor_shapes

VOCAB, CONTEXT = 32_000, 1024
SIGNS = [chr(code) for code in range(33, 127)]


@dataclass(frozen=True)
class Size:
    """A shape of Llama: numbers a layer takes, numbers in its MLP, layers, heads."""

    dim: int
    hidden: int
    layers: int
    heads: int


SIZES = {"15M": Size(288, 768, 6, 6), "110M": Size(768, 2048, 12, 12)}


def write_model(folder: Path, size: Size) -> None:
    """Write a model into `folder`; each of its tokens is a text by itself.

    What the layers add is far larger than what comes in, so that a greedy text does not just say
    its last token again, as it would with a tied head.
    """
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": size.dim,
        "intermediate_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "vocab_size": VOCAB,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(0)
    tensors = {
        name: np.ones(shape, np.float32)
        if len(shape) == 1
        else random.standard_normal(shape, np.float32)
        * np.float32(0.02 if shape[0] == VOCAB else shape[1] ** -0.5)
        for name, shape in tensor_shapes(read_config(folder)).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _tokenizer().save(str(folder / "tokenizer.json"))


def _tokenizer() -> Tokenizer:
    words = SIGNS + [f"Ġ{number:x}" for number in range(VOCAB - len(SIGNS))]
    tokenizer = Tokenizer(BPE({word: number for number, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def prompt(length: int, seed: int) -> list[int]:
    """Return random ids."""
    return [int(i) for i in np.random.default_rng([seed, length]).integers(100, VOCAB, length)]
