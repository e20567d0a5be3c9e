"""The program that `runtime.arm64.count` runs on an emulated core: passes over one image, with a mark before and after each.

    python3.11 passes.py MODEL HEIGHT WIDTH PASSES

A mark is the system call getsid (count.c). The first two have nothing between them but the loop; two more stand around every
pass. That loop runs in C, as does what it calls: Python's own instructions differ from pass to pass and from run to run, for
it rewrites code that it has run often, and caches attributes by their addresses. What LiteRT refuses is a line on standard
error and exit code 3. Imports nothing of this project.
"""

import gc
import os
import sys
from collections import deque
from functools import partial
from operator import call

import numpy as np
from ai_edge_litert.interpreter import Interpreter

SEED = 0


def main(model: str, height: int, width: int, passes: int) -> None:
    """Marks the passes."""
    interpreter = Interpreter(model_path=model, num_threads=1)
    (entry,) = interpreter.get_input_details()
    shape = [1, height, width, int(entry["shape"][-1])]
    interpreter.resize_tensor_input(entry["index"], shape)
    interpreter.allocate_tensors()
    pixels = np.random.default_rng(SEED).integers(0, 256, shape)
    kind = np.dtype(entry["dtype"])
    values = pixels + np.iinfo(kind).min if kind.kind in "iu" else pixels / 255
    interpreter.set_tensor(entry["index"], values.astype(kind))
    mark, invoke = partial(os.getsid, 0), interpreter._interpreter.Invoke  # Interpreter.invoke is Python around it
    gc.disable()
    deque(map(call, [mark, mark, *[invoke, mark] * passes]), maxlen=0)


if __name__ == "__main__":
    try:
        main(sys.argv[1], *map(int, sys.argv[2:5]))
    except (ValueError, RuntimeError) as error:
        print(str(error).strip().replace("\n", " "), file=sys.stderr)
        sys.exit(3)
