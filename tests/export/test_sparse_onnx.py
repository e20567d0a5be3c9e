"""Sparse .onnx files: the masked weights as sparse initializers, the same values out of ONNX Runtime."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compress.checkpoint import load_student
from compress.errors import BadInput
from export.onnx import export_onnx
from export.sparse.masked import masked_steps, shipped_weights
from runtime.engines import open_model
from tests.export.conftest import PATTERNS, pixels_of

PRECISIONS = ("float32", "float16", "int8", "int8-weights")


@pytest.fixture(scope="module")
def exported(masked_student, folder):
    """(student, dense file, sparse file) of a pattern and precision."""
    made = {}

    def export(pattern, precision):
        if (pattern, precision) not in made:
            student, stem = masked_student(pattern, precision), f"masked_{pattern.replace(':', '_')}_{precision}"
            files = [export_onnx(student, folder / f"{stem}_{form}.onnx", precision, sparse=form) for form in (0, 1)]
            made[pattern, precision] = student, *files
        return made[pattern, precision]

    return export


def _weights(path):
    """Every weight by name, zeros filled in; and the names of the sparse ones."""
    graph = onnx.load(str(path)).graph
    weights = {one.name: numpy_helper.to_array(one) for one in graph.initializer if len(one.dims) == 4}
    sparse = set()
    for one in graph.sparse_initializer:
        assert one.indices.data_type == onnx.TensorProto.INT64
        weight = np.zeros(np.prod(one.dims), onnx.helper.tensor_dtype_to_np_dtype(one.values.data_type))
        weight[numpy_helper.to_array(one.indices)] = numpy_helper.to_array(one.values)
        weights[one.values.name] = weight.reshape(tuple(one.dims))
        sparse.add(one.values.name)
    return weights, sparse


@pytest.mark.parametrize("precision", ["int8", "int8-weights"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_int8_rounding_fills_no_zero(exported, pattern, precision):
    student, *files = exported(pattern, precision)
    masks = student.sparsity.shipped(student.network())
    assert len(masks) >= 6
    for file, stored in zip(files, (set(), {f"{step}_weight_int8" for step in masks}), strict=True):
        weights, sparse = _weights(file.path)
        assert sparse == stored
        for step, integers in shipped_weights(student, precision).items():
            assert np.array_equal(weights[f"{step}_weight_int8"], integers.numpy())
        for step, mask in masks.items():
            assert not weights[f"{step}_weight_int8"][~mask.numpy()].any()
            assert weights[f"{step}_weight_int8"].any()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_sparse_file_computes_what_the_dense_one_does(exported, photographs, precision):
    student, dense, sparse = exported("1x4", precision)
    assert len(_weights(sparse.path)[1]) == len(masked_steps(student))
    pixels = pixels_of((19, 30), photographs)
    expected, found = (open_model(file.path).upscale(pixels).raw for file in (dense, sparse))
    assert expected.std() > (2 if precision == "int8" else 0.01)
    assert np.array_equal(expected, found)
    assert sparse.operators == dense.operators
    assert sparse.metadata == dense.metadata


def test_positions_of_eight_bytes_pay_for_few_large_weights_only(exported):
    sizes = {precision: [file.file_bytes for file in exported("1x4", precision)[1:]] for precision in PRECISIONS}
    assert sizes["float32"][1] < sizes["float32"][0]  # a quarter of the weights is left
    for precision in ("float16", "int8", "int8-weights"):
        assert sizes[precision][1] > sizes[precision][0]


def test_a_student_without_masks_is_refused(saved):
    with pytest.raises(BadInput, match="expected a student with masks"):
        export_onnx(load_student(saved), saved.with_suffix(".onnx"), "float32", sparse=True)
    assert not saved.with_suffix(".onnx").exists()
