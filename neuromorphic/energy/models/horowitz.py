"""Operation and memory energies of 45 nm CMOS at 0.9 V.

M. Horowitz, "Computing's Energy Problem (and what we can do about it)", ISSCC 2014. An int16 row is not in that table; it
is interpolated here (additions linear in bits, products quadratic, between int8 and int32) and says so.
"""

from __future__ import annotations

from typing import Final, Literal

from neuromorphic.energy.estimates import Price, exact

NODE: Final = "45 nm, 0.9 V"
SOURCE: Final = "Horowitz, ISSCC 2014, pp. 10-14"
_INTERPOLATED: Final = f"interpolated between int8 and int32 of {SOURCE}"

Precision = Literal["fp32", "fp16", "int32", "int16", "int8"]
ADD_PJ: Final[dict[str, float]] = {"fp32": 0.9, "fp16": 0.4, "int32": 0.1, "int16": 0.03 + 0.07 / 3, "int8": 0.03}
MULTIPLY_PJ: Final[dict[str, float]] = {
    "fp32": 3.7,
    "fp16": 1.1,
    "int32": 3.1,
    "int16": 0.2 + 2.9 * (16**2 - 8**2) / (32**2 - 8**2),
    "int8": 0.2,
}


def check_precision(precision: str) -> None:
    """Raise ValueError for a precision without prices."""
    if precision not in ADD_PJ:
        raise ValueError(f"precision must be one of {', '.join(ADD_PJ)}, got {precision!r}")


def _source(precision: str) -> str:
    return _INTERPOLATED if precision == "int16" else SOURCE


def add_price(precision: str) -> Price:
    """One addition (AC)."""
    check_precision(precision)
    return exact(ADD_PJ[precision], f"pJ per {precision} addition", NODE, _source(precision))


def mac_price(precision: str) -> Price:
    """One multiplication and addition (MAC)."""
    check_precision(precision)
    value = ADD_PJ[precision] + MULTIPLY_PJ[precision]
    return exact(value, f"pJ per {precision} multiply-accumulate", NODE, _source(precision))
