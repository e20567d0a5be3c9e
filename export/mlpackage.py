"""Opens an .mlpackage: its specification, and its ML Program as coremltools reads it. Needs no torch."""

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compress.errors import BadInput, Unavailable
from export.chatter import silenced


def import_coremltools() -> Any:
    """coremltools' module, without what it says about every library's version. Raises Unavailable where it is missing.

    It would import TensorFlow where that is installed, which nothing here asks for, takes seconds, and ends the process
    when PyTorch's triton is imported after it.
    """
    hidden = "coremltools" not in sys.modules and "tensorflow" not in sys.modules
    if hidden:
        sys.modules["tensorflow"] = None  # type: ignore[assignment]
    try:
        with quiet():
            return importlib.import_module("coremltools")
    except ModuleNotFoundError as error:
        raise Unavailable(
            "expected coremltools to read an .mlpackage, found it missing: pip install coremltools."
        ) from error
    finally:
        if hidden:
            del sys.modules["tensorflow"]


def read_spec(package: Path) -> tuple[Any, str]:
    """(specification, folder of the weights) of a package with an ML Program. Raises BadInput for anything else."""
    coremltools = import_coremltools()
    if not package.is_dir():
        what = "a file" if package.exists() else "nothing"
        raise BadInput(f"expected an .mlpackage, which is a folder, found {what} at {package}: check the path.")
    try:
        with quiet():
            model = coremltools.models.MLModel(str(package), skip_model_load=True)
        spec = model.get_spec()
    except Exception as error:  # coremltools raises RuntimeError, ValueError, KeyError, protobuf's DecodeError ...
        raise _refused(package, error) from error
    if spec.WhichOneof("Type") != "mlProgram" or "main" not in spec.mlProgram.functions:
        raise BadInput(
            f"expected an .mlpackage with an ML Program, found a {spec.WhichOneof('Type')} in {package}: convert it with "
            "convert_to='mlprogram'."
        )
    return spec, model.weights_dir


def load_program(spec: Any, weights: str, package: Path) -> Any:
    """The MIL program of a specification, with its types inferred. Raises BadInput, naming `package`, if it is damaged."""
    from coremltools.converters.mil.frontend.milproto.load import load

    try:
        with quiet():
            return load(spec, specification_version=spec.specificationVersion, file_weights_dir=weights)
    except Exception as error:
        raise _refused(package, error) from error


def _refused(package: Path, error: Exception) -> BadInput:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return BadInput(
        f"expected an .mlpackage with an ML Program, found something else in {package} ({line}): export it again."
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """coremltools warns about every version of torch and every library that only macOS has."""
    logger = logging.getLogger("coremltools")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with silenced():
            yield
    finally:
        logger.setLevel(before)
