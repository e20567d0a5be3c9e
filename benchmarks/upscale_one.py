"""One contestant of `benchmarks.upscale`, in a process of its own.

`python -m benchmarks.upscale_one WAY MODEL PHOTO.png OUT.jpg THREADS` prints a line of JSON: seconds, processor seconds and
megapixels of the result, seconds of writing it, and the peak of resident memory, of the whole process and above what it
took before the photograph was read, in kB.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from runtime.engines import open_model
from runtime.tiling import strips
from runtime.upscale.writers import open_writer

Pixels = NDArray[np.uint8]
Upscale = Callable[[Pixels], Pixels]
ROOM = 0.85  # of the machine's free memory that a contestant may take


def tiled(model: Path, threads: int) -> Callable[[Pixels, Path], tuple[float, float]]:
    """Strips of exact tiles, each written as it comes; seconds of upscaling, and of writing."""
    engine = open_model(model, threads=threads)

    def run(lr: Pixels, out: Path) -> tuple[float, float]:
        started, writing = time.perf_counter(), 0.0
        with open_writer(out, engine.scale * lr.shape[1], engine.scale * lr.shape[0]) as writer:
            for strip in strips(engine, lr):
                before = time.perf_counter()
                writer.write(strip)
                writing += time.perf_counter() - before
                del strip
        return time.perf_counter() - started - writing, writing

    return run


def whole(upscale: Upscale) -> Callable[[Pixels, Path], tuple[float, float]]:
    """The frame in one piece, then the file; seconds of each."""

    def run(lr: Pixels, out: Path) -> tuple[float, float]:
        started = time.perf_counter()
        sr = upscale(lr)
        upscaled = time.perf_counter()
        Pillow.fromarray(sr).save(out, quality=95, subsampling=0)
        return upscaled - started, time.perf_counter() - upscaled

    return run


def torch_frame(model: Path, threads: int) -> Upscale:
    """PyTorch as one writes it who minds memory: in inference mode, every step after the network in place."""
    import torch

    from compress.checkpoint import load_student

    torch.set_num_threads(threads)
    network = load_student(model).network().eval()

    @torch.inference_mode()
    def upscale(lr: Pixels) -> Pixels:
        sr = network(torch.from_numpy(lr).permute(2, 0, 1)[None].float().div_(255))
        return sr.clamp_(0, 1).mul_(255).round_().byte()[0].permute(1, 2, 0).contiguous().numpy()

    return upscale


def onnx_frame(model: Path, threads: int) -> Upscale:
    """ONNX Runtime as one writes it who minds memory."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def upscale(lr: Pixels) -> Pixels:
        x = lr.transpose(2, 0, 1)[None].astype(np.float32)
        x /= 255
        sr = np.asarray(session.run(None, {name: x})[0])
        np.clip(sr, 0, 1, out=sr)
        sr *= 255
        np.rint(sr, out=sr)
        return np.ascontiguousarray(sr[0].astype(np.uint8).transpose(1, 2, 0))

    return upscale


WAYS: dict[str, Callable[[Path, int], Callable[[Pixels, Path], tuple[float, float]]]] = {
    "tiled": tiled,
    "torch": lambda model, threads: whole(torch_frame(model, threads)),
    "onnx": lambda model, threads: whole(onnx_frame(model, threads)),
}


def main() -> None:
    way, model, photo, out, threads = sys.argv[1:]
    run = WAYS[way](Path(model), int(threads))
    before = kilobytes("/proc/self/status", "VmRSS")
    free = kilobytes("/proc/meminfo", "MemAvailable")
    limit = 1024 * (kilobytes("/proc/self/status", "VmSize") + int(ROOM * free))  # an error here, not a full machine
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    lr = np.asarray(Pillow.open(photo).convert("RGB"))
    started = time.process_time()
    upscaling, writing = run(lr, Path(out))
    processor = time.process_time() - started
    width, height = Pillow.open(out).size
    figures = {"megapixels": width * height / 1e6, "seconds": upscaling, "writing": writing, "processor": processor}
    peak = kilobytes("/proc/self/status", "VmHWM")
    print(json.dumps({**figures, "peak": peak, "raised": peak - before}))


def kilobytes(path: str, name: str) -> int:
    """A line such as 'VmHWM:  123 kB' of a file of Linux's: proc_pid_status(5), proc_meminfo(5)."""
    line = next(line for line in Path(path).read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


if __name__ == "__main__":
    Pillow.MAX_IMAGE_PIXELS = None
    main()
