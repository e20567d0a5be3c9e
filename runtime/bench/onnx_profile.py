"""Times of operators in ONNX Runtime, from the trace that it writes."""

import json
import tempfile
from pathlib import Path

import numpy as np

from compress.errors import BadInput
from export.metadata import ENTRY, Metadata
from runtime.bench.profile import Operator, medians
from runtime.engines.base import Image, from_pixels
from runtime.engines.onnxruntime import ERRORS_ONLY, preload

WARMUP = 3


def profile(path: Path, lr: Image, threads: int, runs: int) -> list[Operator]:
    """Runs an .onnx several times and returns the median of each node that was left after ONNX Runtime's optimisations.

    Args:
        path: of the file.
        lr: (H, W, 3) uint8.
        threads: of the session.
        runs: profiled ones, after a warm-up.

    Raises:
        BadInput: a file without our metadata.
    """
    runtime = preload()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level, options.enable_profiling = ERRORS_ONLY, True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "trace")
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        written = session.get_modelmeta().custom_metadata_map.get(ENTRY)
        if written is None:
            raise BadInput(
                f"expected an .onnx that pocketsr exported, found one without its metadata in {path}: export it."
            )
        spec = Metadata.from_json(written, str(path)).input
        given = {session.get_inputs()[0].name: np.ascontiguousarray(from_pixels(lr, spec).transpose(2, 0, 1)[None])}
        for _ in range(WARMUP + runs):
            session.run(None, given)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    each = len(nodes) // (WARMUP + runs)
    return medians(
        (event["name"].removesuffix("_kernel_time"), event["args"]["op_name"], event["dur"] / 1000)
        for event in nodes[WARMUP * each :]
    )
