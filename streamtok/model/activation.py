"""Activation functions of an MLP, by the names that checkpoints use, for whole arrays.

Read next: `streamtok.model.config`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from streamtok.model.weights import Array

ACTIVATIONS: Mapping[str, str] = {  # as configurations name them -> as `ModelConfig` does
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}

# erf(x) is x P(x^2) / Q(x^2) for |x| < 4, and 1 or -1 beyond, to 5e-7: the coefficients of the
# float32 function in Eigen and XLA, highest power first
ERF_P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
ERF_Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


def activate(activation: str, x: Array, out: Array) -> Array:
    """Write the activation of each number of `x` to `out`, which is another array, and return it.

    silu (arXiv:1702.03118) and gelu by tanh are both x / (1 + exp(e)), with e = -x for silu and,
    since 1 + tanh(z) is 2 / (1 + exp(-2z)), a polynomial of x for the other. gelu
    (arXiv:1606.08415) is x times the chance that a normal number is smaller.
    """
    if activation == "relu":
        return np.maximum(x, np.float32(0), out=out)
    if activation == "gelu":
        share = erf(x * np.float32(np.sqrt(0.5)))
        share += 1
        share *= np.float32(0.5)
        return np.multiply(x, share, out=out)
    with np.errstate(over="ignore"):  # where exp is infinite the quotient is rightly zero
        np.exp(_exponent(activation, x, out), out=out)
    out += 1.0
    return np.divide(x, out, out=out)


def erf(x: Array) -> Array:
    """Return the error function of each number, to 5e-7; shape as given."""
    x = np.clip(x, np.float32(-4), np.float32(4))
    square = x * x
    result: Array = x * _polynomial(ERF_P, square) / _polynomial(ERF_Q, square)
    return result


def _exponent(activation: str, x: Array, out: Array) -> Array:
    """Write the `e` for which the activation of x is x / (1 + exp(e)) to `out`; return it."""
    if activation == "silu":
        return np.negative(x, out=out)
    exponent = np.multiply(x, x, out=out)
    exponent *= np.float32(-2 * np.sqrt(2 / np.pi) * 0.044715)
    exponent -= np.float32(2 * np.sqrt(2 / np.pi))
    exponent *= x
    return exponent


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    """Return a polynomial of each number by Horner's rule; shape as given."""
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= x
        value += np.float32(coefficient)
    return value
