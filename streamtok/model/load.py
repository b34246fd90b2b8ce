"""A model folder to a decoder: chooses the graph, and plugs in what fits it to the machine.

The files are read by `streamtok.model.families.folder`.

Read next: `streamtok.model.generation_config`.
"""

from pathlib import Path

from threadpoolctl import threadpool_limits

from streamtok.model.base import Decoder, matrix_shapes
from streamtok.model.decoder import LlamaDecoder
from streamtok.model.families.folder import (
    open_checkpoint,
    read_config,
    read_weights,
    tensor_shapes,
)
from streamtok.model.gpt.decoder import GptDecoder
from streamtok.model.gpt.families import GptConfig
from streamtok.model.machine.products import fitted
from streamtok.model.wide import trial as wide

__all__ = ["load", "read_config", "read_weights", "tensor_shapes"]


def load(folder: Path, threads: int | None = None) -> Decoder:
    """Load the model in a Hugging Face folder, to be computed by so many threads.

    Raises:
        ModelError: anything in the folder is missing, damaged or not supported.
    """
    # A BLAS that shares a product among threads adds in an order that depends on how many there
    # are; ours share its panels instead.
    threadpool_limits(limits=1, user_api="blas")

    config, checkpoint = open_checkpoint(folder)
    products = fitted(matrix_shapes(config), config.head_dim, threads)
    if isinstance(config, GptConfig):
        return GptDecoder(config, checkpoint, products)
    return wide.plug_in(LlamaDecoder(config, checkpoint, products), products.threads)
