"""A model folder to a decoder: the config says which."""

from pathlib import Path

from streamtok.model.decoder import Decoder
from streamtok.model.families import read_config, tensor_shapes
from streamtok.model.gpt import GptDecoder
from streamtok.model.gpt_families import GptConfig
from streamtok.model.weights import Checkpoint


def load(folder: Path) -> Decoder:
    """Load the model in a Hugging Face folder.

    Raises:
        ModelError: anything in the folder is missing, damaged or not supported.
    """
    config = read_config(folder)
    checkpoint = Checkpoint(folder, tensor_shapes(config))
    if isinstance(config, GptConfig):
        return GptDecoder(config, checkpoint)
    return Decoder(config, checkpoint)
