"""The matrices of a decoder's layers, as products of many rows use them.

Either the panels as they are, where OpenBLAS's kernel can be called or small products take any
number of rows; or, where they take eight at most, each layer's panels joined to wider ones, in room
that serves all layers in turn.

Read next: `streamtok.model.wide.product`.
"""

from collections.abc import Mapping
from functools import partial

from msgspec.structs import replace

from streamtok.model.decoder import Layer, LlamaDecoder
from streamtok.model.exact.batch_invariance import Cut, Tiling, multiply
from streamtok.model.exact.linear import Linear
from streamtok.model.machine.kernel import KernelLinear
from streamtok.model.weights import Array
from streamtok.model.wide.form import TWELVE, Form
from streamtok.model.wide.layers import AFTER, BEFORE, MOST, Task
from streamtok.model.wide.product import ROWS, Room, WideMatrix

MATRICES = (*BEFORE, *AFTER)  # of a layer


class Own:
    """The layers' own matrices, for products of as many rows as there are.

    Threads share them if they are `whole`; else each product is one thread's.
    """

    most = MOST

    def __init__(self, decoder: LlamaDecoder, *, whole: bool) -> None:
        tiling, layers = decoder.tiling, decoder.layers
        self.granule = next(iter(tiling.cuts.values())).granule
        self._layers = layers if whole else [_unshared(layer, tiling) for layer in layers]

    def layer(self, index: int) -> Layer:
        """See `Matrices`."""
        return self._layers[index]

    def tasks(self, index: int, names: tuple[str, ...]) -> list[Task]:
        """See `Matrices`: there is nothing to do."""
        return []


class Joined:
    """Matrices whose panels are joined when they are of use."""

    granule, most = TWELVE, ROWS

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


def weights_of(layer: Layer) -> int:
    """Return how many numbers its matrices have."""
    return sum(_panels(layer, name).size for name in MATRICES)


class _Alone(Linear):
    """A weight's panels as they are, multiplied by in the calling thread only."""

    def __init__(self, linear: Linear, cut: Cut) -> None:
        self.panels, self.width = linear.panels, linear.width
        self._cut = cut

    def __call__(self, x: Array, out: Array) -> Array:
        """See `Linear`."""
        multiply(x, self.panels, self._cut, out)
        return out


def _unshared(layer: Layer, tiling: Tiling) -> Layer:
    """Return a layer whose products are not shared among threads."""

    def alone(name: str) -> Linear:
        linear = getattr(layer, name)
        assert isinstance(linear, Linear)
        if isinstance(linear, KernelLinear):
            return linear.unshared()
        return _Alone(linear, tiling.cuts[linear.panels.shape[1]])

    qkv, out, gate_up, down = map(alone, MATRICES)
    return replace(layer, qkv=qkv, out=out, gate_up=gate_up, down=down)
