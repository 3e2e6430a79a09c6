"""The model's vector instructions: a table of opcodes, from the modules that hold them.

Part of model.py, which names the sources.
"""

from __future__ import annotations

import model_float
import model_integer
import model_move
from encoding import Fields
from lanes import Lanes
from model import State, Step, Unmodelled

DISPATCH = {**model_move.DISPATCH, **model_integer.DISPATCH, **model_float.DISPATCH}


def execute(state: State, f: Fields, result: Step) -> None:
    if f.opcode not in DISPATCH:
        raise Unmodelled
    DISPATCH[f.opcode](Lanes(state, f, result))
