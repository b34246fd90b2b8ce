"""How positions rotate, read from `config.json`: every spelling that checkpoints have of it.

Newer files say all of it in `rope_parameters`; older ones in `rope_scaling` and keys beside it, and
where both are there transformers takes the older.
"""

import math

from msgspec import Struct

from streamtok.errors import ModelError
from streamtok.model.families.reader import ConfigReader
from streamtok.model.families.scaling import Linear, Llama3, LongRope, Yarn
from streamtok.model.rope import Rope, Scaling

KINDS = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
BY_LAYER = ("full_attention", "sliding_attention")  # keys of files that rotate layers differently


class RopeKeys(Struct, frozen=True):
    """What a family has outside of `rope_parameters`, and what a missing key means there.

    `partial` is the share of a head that is rotated; None where a family's own is always the whole.
    `original` is the length of the first training's texts, and None means the context. What is
    called "yarn" may be a `yarn` of another name.
    """

    theta: float = 10000.0
    theta_key: str = "rope_theta"
    partial: float | None = None
    partial_key: str = "partial_rotary_factor"
    original: int | None = None
    yarn: str = "yarn"


def read_rope(
    reader: ConfigReader, keys: RopeKeys, context: int, head_dim: int
) -> tuple[Rope, int]:
    """Return how positions rotate, and how many numbers of a head do.

    Raises:
        ModelError: it is a way that is not computed here, or a number is missing or wrong.
    """
    older = reader.mapping("rope_scaling")
    section = reader.section("rope_scaling" if older else "rope_parameters")
    for key in BY_LAYER:
        section.require(key, None)
    rotary_dim = _rotary_dim(reader, section, keys, head_dim)
    theta = section.number("rope_theta", reader.number(keys.theta_key, keys.theta))
    kind = section.text("rope_type", section.text("type", "default"))
    kind = keys.yarn if kind == "yarn" else kind
    if kind not in KINDS:
        raise ModelError(f"{reader.path}: rope_type: expected {', '.join(KINDS)}, found {kind!r}")
    if kind in ("default", "dynamic"):  # they differ only beyond the context, where no text gets
        return Rope(theta), rotary_dim
    # The outer key goes first, as Phi-3 has it, even where its file does not
    inner = section.integer("original_max_position_embeddings", context)
    original = reader.integer("original_max_position_embeddings", keys.original or inner)
    if kind == "longrope":
        return _long_rope(section, theta, context / original, original, rotary_dim), rotary_dim
    if kind == "yarn":
        return _yarn(section, theta, context / original, original), rotary_dim
    return Rope(theta, _scaling(section, kind, original)), rotary_dim


def _rotary_dim(reader: ConfigReader, section: ConfigReader, keys: RopeKeys, head_dim: int) -> int:
    """Return how many numbers of a head rotate."""
    key = "partial_rotary_factor"
    if keys.partial is None:  # transformers rotates the whole head whatever these say, or fails
        for one in (reader, section):
            one.require(key, 1.0)
        return head_dim
    share = section.number(key, reader.number(keys.partial_key, keys.partial))
    if share > 1:
        raise ModelError(f"{reader.path}: {keys.partial_key}: expected at most 1, found {share}")
    rotary_dim = int(head_dim * share)
    if rotary_dim < 2 or rotary_dim % 2:
        raise ModelError(
            f"{reader.path}: {keys.partial_key}: expected an even number of the {head_dim} in a "
            f"head (rotary embeddings rotate pairs), found {rotary_dim}"
        )
    return rotary_dim


def _scaling(section: ConfigReader, kind: str, original: int) -> Scaling:
    if kind == "linear":
        return Linear(section.number("factor"))
    low, high = section.number("low_freq_factor"), section.number("high_freq_factor")
    if low >= high:
        raise ModelError(f"{section.path}: low_freq_factor: expected less than high_freq_factor")
    return Llama3(section.number("factor"), original, low, high)


def _yarn(section: ConfigReader, theta: float, usual: float, original: int) -> Rope:
    factor = section.number("factor", usual)
    growth = 0.1 * max(0.0, math.log(factor))
    attention = 1 + growth
    if section.has("mscale") and section.has("mscale_all_dim"):
        attention = 1 + growth * section.number("mscale")
        attention /= 1 + growth * section.number("mscale_all_dim")
    scaling = Yarn(
        factor,
        original,
        section.number("beta_fast", 32.0),
        section.number("beta_slow", 1.0),
        section.flag("truncate", True),
    )
    return Rope(theta, scaling, section.number("attention_factor", attention))


def _long_rope(
    section: ConfigReader, theta: float, usual: float, original: int, rotary_dim: int
) -> Rope:
    factor = section.number("factor", usual)
    attention = math.sqrt(1 + max(0.0, math.log(factor)) / math.log(max(original, 2)))
    factors = tuple(section.numbers("short_factor"))
    if len(factors) != rotary_dim // 2:
        raise section.refuse("short_factor", f"{rotary_dim // 2} numbers, one for each pair")
    scaling = LongRope(factors, original)
    return Rope(theta, scaling, section.number("attention_factor", attention))
