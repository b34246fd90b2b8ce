"""Models small enough for any test: random weights, a tokenizer of bytes, all in real files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, decoders, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from streamtok.model.load import read_config, tensor_shapes
from streamtok.model.weights import Array

SPECIALS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TINY: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 256 + len(SPECIALS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


def byte_tokenizer() -> Backend:
    """Return a byte-level tokenizer whose 256 first ids are the bytes, then the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Backend(BPE({character: byte for byte, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIALS[0]} $A", special_tokens=[(SPECIALS[0], 256)]
    )
    return tokenizer


def random_weights(folder: Path, seed: int = 0) -> dict[str, Array]:
    """Return random tensors of the shapes that `folder`/config.json asks for."""
    random = np.random.default_rng(seed)
    return {
        name: (1 + random.standard_normal(shape, dtype=np.float32) * 0.2)
        if len(shape) == 1
        else random.standard_normal(shape, dtype=np.float32) * np.float32(2 / np.sqrt(shape[1]))
        for name, shape in tensor_shapes(read_config(folder)).items()
    }


def write_model(folder: Path, seed: int = 0, **config: Any) -> Path:
    """Write a tiny random model into `folder`; keywords replace keys of its `config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    for name, content in (
        ("config.json", TINY | config),
        (
            "tokenizer_config.json",
            {"bos_token": SPECIALS[0], "eos_token": SPECIALS[-1], "chat_template": TEMPLATE},
        ),
        ("generation_config.json", {"eos_token_id": [256, 260]}),
    ):
        (folder / name).write_text(json.dumps(content))
    save_file(random_weights(folder, seed), folder / "model.safetensors")
    return folder
