"""Reads a finished .tflite back and says what is really in it: `python -m export.audit FILE`.

Files are judged by their contents, not by the flags they were made with. Needs no torch, so it runs on a device.
"""

import argparse
import collections
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import BadInput, run_command
from export.chatter import silenced
from export.metadata import read_tflite, tflite_model

FLOATS = frozenset({"FLOAT32", "FLOAT16", "FLOAT64", "BFLOAT16"})


@dataclass(frozen=True)
class Audit:
    """What a .tflite contains.

    Attributes:
        operators: how many of each type.
        float_operators: those that read or write a float tensor, as "TYPE:output name". Weights stored as float16 are
            unpacked by DEQUANTIZE, which counts.
        input_type, output_type: types of the image tensors, such as INT8.
        partitions: groups of operators that XNNPACK takes; 1 is best.
        outside: operators that XNNPACK leaves to the slower built-in kernels.
        weight_bytes: of all constant tensors.
        file_bytes: of the file.
        largest_rank: of any tensor; delegates refuse more than 4.
        resizable: whether it ran on an image of another size.
    """

    operators: dict[str, int]
    float_operators: list[str]
    input_type: str
    output_type: str
    partitions: int
    outside: list[str]
    weight_bytes: int
    file_bytes: int
    largest_rank: int
    resizable: bool

    @property
    def integer_only(self) -> bool:
        """No operator computes on floats."""
        return not self.float_operators

    def faults(self, precision: str, images: str = "int8") -> list[str]:
        """Why the file is not what a file of that precision, with such images if it is int8, should be; empty when it is."""
        faults = []
        converting = [] if images == "int8" else ["QUANTIZE", "DEQUANTIZE" if images == "float32" else "QUANTIZE"]
        outside = self.outside
        if precision == "int8":
            floats = [one for one in self.float_operators if images != "float32" or one.split(":")[0] not in converting]
            if floats:
                faults.append(f"{len(floats)} float operators, first {floats[0]}")
            outside = [] if outside == sorted(converting) else outside
        wanted = images.upper() if precision == "int8" else "FLOAT32"
        if (self.input_type, self.output_type) != (wanted, wanted):
            faults.append(f"images of type {self.input_type} and {self.output_type} instead of {wanted}")
        if self.partitions != 1 or outside:
            faults.append(f"{self.partitions} XNNPACK partitions with {', '.join(self.outside) or 'nothing'} outside")
        if self.largest_rank > 4:
            faults.append(f"a tensor of rank {self.largest_rank}")
        return faults


def audit_tflite(path: str | Path) -> Audit:
    """Audits a file.

    Raises:
        BadInput: not a readable .tflite, or one that the interpreter refuses.
    """
    path = Path(path)
    model = tflite_model(path)
    graph = model.subgraphs[0]
    types = _names_by_value("TensorType")
    operators: collections.Counter[str] = collections.Counter()
    float_operators = []
    for operator in graph.operators:
        kind = operator_name(model, operator)
        operators[kind] += 1
        touched = [graph.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
        if any(types[tensor.type] in FLOATS for tensor in touched):
            float_operators.append(f"{kind}:{_text(graph.tensors[operator.outputs[0]].name)}")
    constants = {t.buffer for t in graph.tensors if model.buffers[t.buffer].data is not None}
    partitions, outside = _delegated(path)
    return Audit(
        operators=dict(operators),
        float_operators=float_operators,
        input_type=types[graph.tensors[graph.inputs[0]].type],
        output_type=types[graph.tensors[graph.outputs[0]].type],
        partitions=partitions,
        outside=outside,
        weight_bytes=sum(len(model.buffers[i].data) for i in constants),
        file_bytes=path.stat().st_size,
        largest_rank=max((0 if t.shape is None else len(t.shape)) for t in graph.tensors),
        resizable=_resizable(path),
    )


def operator_name(model: Any, operator: Any) -> str:
    """The type of an operator of a parsed .tflite, such as CONV_2D."""
    code = model.operatorCodes[operator.opcodeIndex]
    return _names_by_value("BuiltinOperator")[max(code.builtinCode, code.deprecatedBuiltinCode)]


@functools.cache
def _names_by_value(enumeration: str) -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {value: name for name, value in vars(getattr(schema, enumeration)).items() if not name.startswith("_")}


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _interpreter(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    try:
        with silenced():
            interpreter = Interpreter(str(path), num_threads=1)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise BadInput(
            f"expected a .tflite that LiteRT runs, found that it refuses {path} ({reason}): export it again."
        ) from error
    return interpreter


def _delegated(path: Path) -> tuple[int, list[str]]:
    """XNNPACK partitions, and the operators outside them, found by walking back from the output."""
    interpreter = _interpreter(path)
    nodes = interpreter._get_ops_details()
    producers: dict[int, dict[str, Any]] = {}
    for node in sorted(nodes, key=lambda node: node["op_name"] == "DELEGATE"):  # delegates win over what they replaced
        producers.update({int(i): node for i in node["outputs"]})
    waiting = [detail["index"] for detail in interpreter.get_output_details()]
    used: dict[int, dict[str, Any]] = {}
    while waiting:
        node = producers.get(int(waiting.pop()))
        if node is not None and node["index"] not in used:
            used[node["index"]] = node
            waiting += [int(i) for i in node["inputs"] if i >= 0]
    kinds = [node["op_name"] for node in used.values()]
    return kinds.count("DELEGATE"), sorted(kind for kind in kinds if kind != "DELEGATE")


def _resizable(path: Path) -> bool:
    interpreter = _interpreter(path)
    given = interpreter.get_input_details()[0]
    height, width = 24, 37
    try:
        with silenced():
            interpreter.resize_tensor_input(given["index"], [1, height, width, int(given["shape"][-1])])
            interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], np.zeros((1, height, width, int(given["shape"][-1])), given["dtype"]))
        interpreter.invoke()
        before, after = given["shape"], interpreter.get_output_details()[0]["shape"]
    except (RuntimeError, ValueError):
        return False
    return len(before) == 4 and bool(after[1] % height == 0 and after[1] // height == after[2] // width)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export.audit",
        description="Says what is in a .tflite: operators, float operators, partitions, sizes. "
        "Exits with 1 where a file is not what a file of its precision should be.",
    )
    parser.add_argument("file", type=Path, help="the .tflite, ours or not")
    file = parser.parse_args().file
    found, metadata = audit_tflite(file), read_tflite(file)
    print(f"{file}: {found.file_bytes:,} bytes, of which weights {found.weight_bytes:,}")
    print(f"  made by pocketsr: {'no' if metadata is None else f'yes, {metadata.architecture} x{metadata.scale}'}")
    print(f"  images: {found.input_type} in, {found.output_type} out, {'any size' if found.resizable else 'one size'}")
    print(f"  operators: {', '.join(f'{count} {kind}' for kind, count in found.operators.items())}")
    if found.input_type not in FLOATS:
        print(f"  float operators: {', '.join(found.float_operators) or 'none'}")
    print(f"  XNNPACK: {found.partitions} partitions, outside: {', '.join(found.outside) or 'none'}")
    precision = metadata.precision if metadata else ("int8" if found.input_type == "INT8" else "float32")
    faults = found.faults(precision)
    for fault in faults:
        print(f"  FAULT for {precision}: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    run_command(main)
