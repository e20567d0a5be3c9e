"""Contract 6 on a device over adb: what every engine does."""

import sys

import numpy as np
import pytest

from tests.runtime.conftest import opened
from tests.runtime.device.conftest import PORT
from tests.runtime.test_engine_contract import (
    test_computes_what_the_student_computes,
    test_describes_itself,
    test_refuses_what_is_no_rgb_image,
    test_result_is_an_image_of_scale_times_the_size,
    test_results_are_the_callers_own,
    test_same_image_gives_the_same_values_after_another_size,
    test_smallest_image,
    test_takes_a_view_of_an_image,
    test_time_is_split,
)

__all__ = [
    "test_computes_what_the_student_computes", "test_describes_itself", "test_refuses_what_is_no_rgb_image",
    "test_result_is_an_image_of_scale_times_the_size", "test_results_are_the_callers_own",
    "test_same_image_gives_the_same_values_after_another_size", "test_smallest_image", "test_takes_a_view_of_an_image",
    "test_time_is_split",
]  # fmt: skip
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and the runner's build are Linux's")
NAME = f"adb:127.0.0.1:{PORT}"


@pytest.fixture(scope="module", params=[(NAME, "float32"), (NAME, "int8")], ids=["float32", "int8"])
def engine(request, tiny, phone):
    with opened(tiny, *request.param) as engine:
        yield engine


def test_threads_do_not_change_integers(tiny, phone, photograph):
    outputs = []
    for threads in (1, 2, 4):
        with opened(tiny, NAME, "int8", threads) as engine:
            outputs.append(engine.upscale(photograph).raw)
    assert all(np.array_equal(output, outputs[0]) for output in outputs)
