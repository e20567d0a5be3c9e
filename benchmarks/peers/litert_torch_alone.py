"""litert-torch as it is documented: the network as it was trained, channels last; for int8 its PT2E quantizer."""

from pathlib import Path

import torch

from benchmarks.peers import Task
from export.chatter import logged


def write_float32(task: Task) -> Path:
    """Writes the float32 .tflite."""
    import litert_torch

    path = task.folder / "litert_torch_float32.tflite"
    with logged(path.with_suffix(".log"), path.name):
        channels_last = litert_torch.to_channel_last_io(task.student.network(), args=[0], outputs=[0]).eval()
        litert_torch.convert(channels_last, (torch.zeros(1, task.side, task.side, 3),)).export(str(path))
    return path


def write_int8(task: Task) -> Path:
    """Writes the int8 .tflite."""
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    path = task.folder / "litert_torch_int8.tflite"
    with logged(path.with_suffix(".log"), path.name):
        quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        channels_last = litert_torch.to_channel_last_io(task.student.network(), args=[0], outputs=[0]).eval()
        crops = torch.from_numpy(task.channels_last())
        prepared = prepare_pt2e(torch.export.export(channels_last, (crops[:1],)).module(), quantizer)
        for crop in crops.split(1):
            prepared(crop)
        quantized = convert_pt2e(prepared, fold_quantize=False)
        converted = litert_torch.convert(quantized, (crops[:1],), quant_config=QuantConfig(pt2e_quantizer=quantizer))
        converted.export(str(path))
    return path
