"""The matrices of a decoder's layers, as products of many rows use them.

Either the panels as they are, where OpenBLAS's kernel can be called; or, where a whole BLAS product
has to be, each layer's panels joined to wider ones, in room that serves all layers in turn.

Read next: `streamtok.model.wide.product`.
"""

from collections.abc import Mapping
from functools import partial

from msgspec.structs import replace

from streamtok.model.decoder import Layer, LlamaDecoder
from streamtok.model.exact.linear import Linear
from streamtok.model.machine.kernel import KernelLinear
from streamtok.model.weights import Array
from streamtok.model.wide.form import TWELVE, Form
from streamtok.model.wide.layers import AFTER, BEFORE, Task
from streamtok.model.wide.product import Room, WideMatrix

MATRICES = (*BEFORE, *AFTER)  # of a layer


class Packed:
    """The layers' own matrices, which are as the kernel wants them."""

    granule = 8

    def __init__(self, decoder: LlamaDecoder) -> None:
        self._layers = [_unshared(layer) for layer in decoder.layers]

    def layer(self, index: int) -> Layer:
        """See `Matrices`."""
        return self._layers[index]

    def tasks(self, index: int, names: tuple[str, ...]) -> list[Task]:
        """See `Matrices`: there is nothing to do."""
        return []


class Joined:
    """Matrices whose panels are joined when they are of use."""

    granule = TWELVE

    def __init__(self, decoder: LlamaDecoder, forms: Mapping[int, Form]) -> None:
        """Use `forms` by the number of terms."""
        self._layers = decoder.layers
        self._forms = forms
        self._room = Room()
        self._matrices: dict[str, WideMatrix] = {}  # made when they are first of use

    def layer(self, index: int) -> Layer:
        """See `Matrices`; valid after `tasks` of this layer were done."""
        qkv, out, gate_up, down = (self._matrices[name] for name in MATRICES)
        return replace(self._layers[index], qkv=qkv, out=out, gate_up=gate_up, down=down)

    def tasks(self, index: int, names: tuple[str, ...]) -> list[Task]:
        """See `Matrices`: panels are joined."""
        if not self._matrices:
            self._matrices = {name: self._matrix(name) for name in MATRICES}
        return [
            partial(self._matrices[name].join, piece, _panels(self._layers[index], name))
            for name in names
            for piece in range(self._matrices[name].pieces)
        ]

    def _matrix(self, name: str) -> WideMatrix:
        """Return room for the matrices called `name`, which are alike in all layers."""
        count, inner, panel = _panels(self._layers[0], name).shape
        return WideMatrix(self._forms[inner], inner, count * panel, self._room)


def _panels(layer: Layer, name: str) -> Array:
    """Return those of one matrix of `layer`: [P, in, panel]."""
    linear = getattr(layer, name)
    assert isinstance(linear, Linear)
    return linear.panels


def _unshared(layer: Layer) -> Layer:
    """Return a layer whose products are not shared among threads."""

    def alone(name: str) -> Linear:
        linear = getattr(layer, name)
        assert isinstance(linear, KernelLinear)
        return linear.unshared()

    qkv, out, gate_up, down = map(alone, MATRICES)
    return replace(layer, qkv=qkv, out=out, gate_up=gate_up, down=down)
