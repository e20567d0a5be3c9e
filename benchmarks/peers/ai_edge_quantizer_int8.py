"""ai-edge-quantizer: its recipe for static int8, on the float32 file that litert-torch writes by itself."""

from pathlib import Path

from ai_edge_litert.interpreter import Interpreter

from benchmarks.peers import Task
from benchmarks.peers.litert_torch_alone import write_float32
from export.chatter import logged


def write_int8(task: Task) -> Path:
    """Writes the int8 .tflite."""
    from ai_edge_quantizer import quantizer, recipe

    path, given = task.folder / "ai_edge_quantizer_int8.tflite", write_float32(task)
    [(signature, tensors)] = Interpreter(str(given)).get_signature_list().items()
    [name] = tensors["inputs"]
    with logged(path.with_suffix(".log"), path.name):
        work = quantizer.Quantizer(str(given))
        work.load_quantization_recipe(recipe.static_wi8_ai8())
        crops = task.channels_last()
        calibrated = work.calibrate({signature: [{name: crops[i : i + 1]} for i in range(len(crops))]})
        work.quantize(calibrated).export_model(str(path), overwrite=True)
    return path
