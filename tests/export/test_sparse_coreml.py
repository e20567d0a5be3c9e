"""Sparse .mlpackages: a bit for every masked weight, integers too, and the same pictures out of the reference evaluation."""

import numpy as np
import pytest
import torch

from compress.checkpoint import load_student
from compress.errors import BadInput
from export.coreml import export_coreml
from export.mil import read_program, values
from export.sparse.masked import shipped_weights
from tests.export.conftest import PATTERNS, pixels_of

SPARSE = ("constexpr_sparse_to_dense", "constexpr_sparse_blockwise_shift_scale")


@pytest.fixture(scope="module")
def exported(masked_student, folder):
    """(student, package) of a pattern, precision and form, each written once."""
    made = {}

    def export(pattern, precision, sparse, **options):
        key = pattern, precision, sparse, *options.values()
        if key not in made:
            student, name = masked_student(pattern, precision), "_".join(map(str, key)).replace(":", "_")
            path = folder / f"masked_{name}.mlpackage"
            made[key] = student, export_coreml(student, path, precision, sparse=sparse, **options)
        return made[key]

    return export


def _values(package, pixels):
    """(last value, operators, real weights by name of the convolution's step)."""
    _, program = read_program(package)
    operations = program.functions["main"].operations
    found = dict(values(program, pixels.transpose(2, 0, 1)[None].astype(np.float32)))
    weights = {}
    for op in operations:
        if op.op_type == "conv":
            weight = found[op.weight.name] if op.weight.name in found else torch.from_numpy(op.weight.val)
            if op.weight.op.op_type == "constexpr_sparse_to_dense":  # coremltools' own reading of it
                assert np.array_equal(weight.numpy(), op.weight.op.materialized_val_inference())
            weights[op.name.removesuffix("_cast_fp16").removesuffix("_sum").removesuffix("_real")] = weight
    return found["sr"], operations, weights


@pytest.mark.parametrize("pattern", PATTERNS)
def test_int8_rounding_fills_no_zero(exported, photographs, pattern):
    for sparse in (False, True):
        student, file = exported(pattern, "int8", sparse)
        masks = student.sparsity.shipped(student.network())
        _, operations, weights = _values(file.path, pixels_of((8, 8), photographs))
        for kind in SPARSE:
            assert sum(op.op_type == kind for op in operations) == (len(masks) if sparse else 0)
        scales = {step: layer.scale[:, None, None, None] for step, layer in student.quantization.layers.items()}
        for step, integers in shipped_weights(student, "int8").items():
            assert torch.equal(weights[step], integers * scales[step])
        for step, mask in masks.items():
            assert not weights[step][~mask].any()
            assert weights[step].any()


@pytest.mark.parametrize(
    ("precision", "target"),
    [("float32", "iOS17"), ("float32", "iOS18"), ("float16", "iOS17"), ("int8-weights", None), ("int8", None)],
)
def test_a_sparse_package_computes_what_the_dense_one_does_and_is_smaller(exported, photographs, precision, target):
    (_, dense), (_, sparse) = (exported("1x4", precision, form, target=target) for form in (False, True))
    pixels = pixels_of((19, 30), photographs)
    (expected, *_), (found, *_) = (_values(file.path, pixels) for file in (dense, sparse))
    assert expected.std() > 2
    assert torch.equal(expected, found)
    blobs = [(file.path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size for file in (dense, sparse)]
    assert blobs[1] < 0.8 * blobs[0]
    spec, _ = read_program(sparse.path)
    (opset,) = spec.mlProgram.functions["main"].block_specializations
    assert opset == ("CoreML7" if target == "iOS17" else "CoreML8")


def test_what_has_no_sparse_form_is_refused(saved, masked_student, tmp_path):
    with pytest.raises(BadInput, match="expected the target iOS18 for sparse int8 weights, found iOS17") as caught:
        export_coreml(masked_student("2:4", "int8"), tmp_path / "x.mlpackage", "int8", target="iOS17", sparse=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="expected a student with masks"):
        export_coreml(load_student(saved), tmp_path / "x.mlpackage", "float32", sparse=True)
    assert not list(tmp_path.glob("*.mlpackage"))
