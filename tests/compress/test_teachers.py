"""Teachers: what may teach, upscalers of other programs through spandrel, and labels of all of them."""

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from spandrel.architectures.Compact import Compact
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.SAFMN import SAFMN
from spandrel.architectures.SPAN import SPAN
from torch import Tensor, nn

from compress import labels
from compress.checkpoint import Student, load_student, save_student
from compress.data.cache import Collection, Pair, collect
from compress.data.images import find_images
from compress.errors import BadInput
from compress.methods import make_method
from compress.models import build
from compress.published import LAYOUTS
from compress.recipe import read_recipe
from compress.teachers import SelfEnsemble, SpandrelUpscaler, TeacherSpec, load_teacher
from compress.train import train

FOREIGN = {
    "ESRGAN": lambda: ESRGAN(num_filters=4, num_blocks=1, scale=2),
    "Compact": lambda: Compact(num_feat=6, num_conv=1, upscale=2),
    "SPAN": lambda: SPAN(num_in_ch=3, num_out_ch=3, feature_channels=6, upscale=2),
}
BSRN = {"scale": 2, "channels": 8, "blocks": 1, "distilled_channels": 4, "attention_channels": 4, "squeeze_channels": 2}


def _image(height: int, width: int, count: int = 1) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def _saved(network: nn.Module, path: Path) -> Path:
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return path


@pytest.fixture
def compact(tmp_path) -> Path:
    torch.manual_seed(3)
    return _saved(FOREIGN["Compact"](), tmp_path / "compact.safetensors")


@pytest.fixture
def collection(photographs, tmp_path, monkeypatch) -> Collection:
    monkeypatch.setenv("POCKETSR_CACHE", str(tmp_path / "cache"))
    return collect(find_images(photographs), 2, 16)


@pytest.mark.parametrize("name", FOREIGN)
def test_an_upscaler_of_another_program_teaches_what_its_own_network_computes(name, tmp_path):
    torch.manual_seed(0)
    network = FOREIGN[name]().eval()
    teacher = load_teacher(TeacherSpec(file=_saved(network, tmp_path / "x.safetensors")), 2)
    assert teacher.network.config.scale == 2
    assert teacher.reach is None
    for size in ((16, 21), (2, 5)):
        lr = _image(*size, count=2)
        with torch.no_grad():
            expected = network(lr).clamp(0, 1)
        sr = teacher.network(lr.contiguous(memory_format=torch.channels_last))
        assert sr.shape == (2, 3, 2 * size[0], 2 * size[1])
        assert expected.std() > 1e-3, "a constant output would prove nothing"
        assert (sr - expected).abs().max() < 1e-5
    assert not any(module.training for module in teacher.network.modules())
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())


@pytest.mark.parametrize("nesting", ["params_ema", None])
def test_a_pickled_state_dict_teaches_the_same(nesting, compact, tmp_path):
    weights = load_teacher(TeacherSpec(file=compact), 2).network.network.state_dict()
    torch.save({nesting: weights} if nesting else weights, tmp_path / "x.pth")
    spec = TeacherSpec(file=tmp_path / "x.pth", layout="spandrel")
    by_pickle, by_safetensors = (load_teacher(s, 2) for s in (spec, TeacherSpec(file=compact)))
    assert torch.equal(by_pickle.network(_image(8, 9)), by_safetensors.network(_image(8, 9)))
    assert by_pickle.key != by_safetensors.key


def test_sizes_that_a_network_does_not_take_are_padded_by_reflection_and_cut(tmp_path):
    torch.manual_seed(0)
    network = SAFMN(dim=8, n_blocks=1, upscaling_factor=2).eval()
    teacher = load_teacher(TeacherSpec(file=_saved(network, tmp_path / "x.safetensors")), 2)
    asked = []
    teacher.network.network.register_forward_pre_hook(lambda _, inputs: asked.append(tuple(inputs[0].shape[2:])))
    with torch.no_grad():
        sr = teacher.network(_image(13, 18))
        expected = network(F.pad(_image(13, 18), (0, 6, 0, 3), "reflect"))[..., :26, :36].clamp(0, 1)
    assert asked == [(16, 24)]
    assert (sr - expected).abs().max() < 1e-6


def test_a_foreign_teacher_works_live_in_a_loss_in_either_precision(compact):
    teacher = load_teacher(TeacherSpec(file=compact), 2)
    method = make_method("distillation", {"truth": 0.0, "teacher": 1.0}, teacher.network)
    student = build("anchor", {"scale": 2, "channels": 8, "blocks": 1})
    with torch.no_grad():
        expected = (student(_image(8, 8)) - teacher.network(_image(8, 8))).abs().mean().item()
    for low in (False, True):
        method.set_low_precision(low)
        loss = sum(method(student, {"lr": _image(8, 8), "hr": _image(16, 16)}).values())
        loss.backward()
        assert loss.item() == pytest.approx(expected, rel=2e-2 if low else 1e-5)
    assert student.head.weight.grad.abs().max() > 0


def test_a_foreign_network_that_does_not_take_bfloat16_stays_in_float32(compact):
    network = load_teacher(TeacherSpec(file=compact), 2).network
    exact = network(_image(8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(_image(8, 8))
        network.descriptor.supports_bfloat16 = False
        assert torch.equal(network(_image(8, 8)), exact)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.05


def test_a_student_and_published_weights_have_features_and_wrapped_networks_have_none(teacher_file, compact, tmp_path):
    save_student(Student.of(build("bsrn", BSRN)), tmp_path / "bsrn.pt")
    torch.save({"params": load_student(tmp_path / "bsrn.pt").weights}, tmp_path / "bsrn.pth")
    for spec in (TeacherSpec(file=teacher_file), TeacherSpec(file=tmp_path / "bsrn.pth", layout="bsrn")):
        network = load_teacher(spec, 2).network
        assert all(isinstance(network.get_submodule(name), nn.Module) for name in network.taps())
        ensemble = load_teacher(TeacherSpec(file=spec.file, layout=spec.layout, self_ensemble=True), 2).network
        assert isinstance(ensemble, SelfEnsemble)
        assert ensemble.config.scale == 2
        assert not hasattr(ensemble, "taps")
    assert not hasattr(load_teacher(TeacherSpec(file=compact), 2).network, "taps")


def _save_with(make: Callable[[], nn.Module]) -> Callable[[Path], Path]:
    return lambda folder: _saved(make(), folder / "x.safetensors")


def _save_torchscript(folder: Path) -> Path:
    torch.jit.script(FOREIGN["Compact"]().upsampler).save(folder / "x.pt")
    return folder / "x.pt"


def _save_tensor(folder: Path) -> Path:
    torch.save(torch.zeros(3), folder / "x.pth")
    return folder / "x.pth"


@pytest.mark.parametrize(
    ("save", "says"),
    [
        (_save_with(lambda: Compact(num_feat=4, num_conv=1, upscale=4)), "scale x2, found x4"),
        (_save_with(lambda: Compact(num_feat=4, num_conv=1, upscale=1)), "RealESRGAN Compact for Restoration, x1"),
        (_save_with(lambda: Compact(num_in_ch=1, num_out_ch=1, num_feat=4, upscale=2)), "1 channels to 1"),
        (_save_with(lambda: nn.Linear(2, 2)), f"found neither.*teacher.layout to one of {', '.join(LAYOUTS)}"),
        (_save_tensor, "found neither"),
        (_save_torchscript, "expected a whole checkpoint"),
        (lambda folder: folder / "none.safetensors", "found no file"),
        (lambda folder: folder, "found a folder"),
    ],
)  # fmt: skip
def test_what_cannot_teach_is_refused_in_one_sentence(save, says, tmp_path):
    with pytest.raises(BadInput, match=says) as caught:
        load_teacher(TeacherSpec(file=save(tmp_path)), 2)
    assert "\n" not in str(caught.value)


class _RunsCode:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("layout", ["auto", "spandrel", "bsrn"])
@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_file_that_would_run_code_is_refused_and_runs_none(save, layout, tmp_path):
    save({"params": _RunsCode(tmp_path / "ran")}, tmp_path / "x.pth")
    with pytest.raises(BadInput, match="runs code"):
        load_teacher(TeacherSpec(file=tmp_path / "x.pth", layout=layout), 2)
    assert not (tmp_path / "ran").exists()


def test_without_spandrel_the_extra_to_install_is_named_and_students_still_teach(compact, teacher_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)  # what an import of a missing package does
    with pytest.raises(BadInput, match=r"expected spandrel.*pip install 'pocketsr\[teachers\]'.*layout") as caught:
        load_teacher(TeacherSpec(file=compact), 2)
    assert "\n" not in str(caught.value)
    assert load_teacher(TeacherSpec(file=teacher_file), 2).network.config.scale == 2


@pytest.mark.parametrize("file", ["bsrn_x4.pth", "rlfn_x4.pth", "srgan_leftthomas_x4.pth", "span_ch28_x4.pth"])
def test_published_weights_that_spandrel_does_not_know_ask_for_their_layout(shared_data, file):
    with pytest.raises(BadInput, match=r"found neither.*teacher\.layout"):
        load_teacher(TeacherSpec(file=shared_data / "weights" / file), 4)


def test_labels_of_a_foreign_teacher_are_computed_once_and_belong_to_its_weights(compact, collection, tmp_path):
    teacher = load_teacher(TeacherSpec(file=compact), 2)
    calls = []
    teacher.network.register_forward_hook(lambda *_: calls.append(1))
    assert labels.missing_bytes(collection, teacher) == sum(pair.hr.nbytes for pair in collection.pairs)
    made = labels.label(collection, teacher)
    assert labels.missing_bytes(collection, teacher) == 0
    again = labels.label(collection, load_teacher(TeacherSpec(file=compact), 2))
    assert len(calls) == len(collection.pairs)
    for pair, fresh, cached in zip(collection.pairs, made, again, strict=True):
        output = teacher.network(torch.tensor(pair.lr).permute(2, 0, 1)[None] / 255)[0].permute(1, 2, 0) * 255
        assert np.array_equal(fresh, cached)
        assert (torch.tensor(fresh) - output).abs().max() < 0.5001
    torch.manual_seed(4)
    other = load_teacher(TeacherSpec(file=_saved(FOREIGN["Compact"](), tmp_path / "other.safetensors")), 2)
    assert labels.missing_bytes(collection, other) > 0
    assert not np.array_equal(labels.label(collection, other)[0], made[0])


@pytest.mark.parametrize("self_ensemble", [False, True])
def test_images_cut_into_strips_get_the_label_of_the_whole_image(
    teacher_file, collection, tmp_path, monkeypatch, self_ensemble
):
    teacher = load_teacher(TeacherSpec(file=teacher_file, self_ensemble=self_ensemble), 2)
    assert teacher.reach == load_student(teacher_file).deploy().receptive_radius()
    whole = labels.label(collection, teacher)
    monkeypatch.setenv("POCKETSR_CACHE", str(tmp_path / "strips"))
    monkeypatch.setattr(labels, "STRIP", 2 * 64 * 2 * 11)  # 11 rows of these images, whose LR is 64x64
    asked = []
    teacher.network.register_forward_hook(lambda _, inputs, output: asked.append(tuple(inputs[0].shape[2:])))
    for one, other in zip(whole, labels.label(collection, teacher), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1
        assert (one != other).mean() < 1e-4
    rows = max(11, 2 * teacher.reach)
    assert asked[0] == (rows + teacher.reach, 64)
    assert asked[1] == (min(64, 2 * rows + teacher.reach) - rows + teacher.reach, 64)


def test_networks_that_judge_whole_images_are_never_cut(collection, tmp_path, monkeypatch, randomised):
    save_student(Student.of(randomised(build("bsrn", BSRN))), tmp_path / "bsrn.pt")
    teacher = load_teacher(TeacherSpec(file=tmp_path / "bsrn.pt"), 2)
    monkeypatch.setattr(labels, "STRIP", 1)
    asked = []
    teacher.network.register_forward_hook(lambda _, inputs, output: asked.append(tuple(inputs[0].shape[2:])))
    labels.label(collection, teacher)
    assert asked == [(64, 64)] * len(collection.pairs)


def test_labels_do_not_depend_on_the_precision_that_is_set_around_them(teacher_file, collection, tmp_path, monkeypatch):
    teacher = load_teacher(TeacherSpec(file=teacher_file), 2)
    exact = labels.label(collection, teacher)
    monkeypatch.setenv("POCKETSR_CACHE", str(tmp_path / "again"))
    with torch.autocast("cpu", torch.bfloat16):
        again = labels.label(collection, teacher)
    assert all(np.array_equal(one, other) for one, other in zip(exact, again, strict=True))


def test_a_teacher_that_gives_no_numbers_is_refused_and_leaves_no_label(teacher_file, collection, tmp_path):
    broken = load_student(teacher_file)
    broken.weights["tail.bias"].fill_(float("nan"))
    save_student(broken, tmp_path / "broken.pt")
    teacher = load_teacher(TeacherSpec(file=tmp_path / "broken.pt"), 2)
    with pytest.raises(BadInput, match=r"expected finite outputs of the teacher broken\.pt"):
        labels.label(collection, teacher)
    assert labels.missing_bytes(collection, teacher) == sum(pair.hr.nbytes for pair in collection.pairs)


def test_an_image_beyond_the_memory_is_named(teacher_file, collection):
    huge = np.broadcast_to(np.zeros((), np.uint8), (2**29, 2**29, 3))
    giant = Collection(2, [Pair(Path("huge.png"), "huge", huge, huge)], [])
    with pytest.raises(BadInput, match=r"expected memory .* huge\.png .* data\.cache_labels") as caught:
        labels.label(giant, load_teacher(TeacherSpec(file=teacher_file), 2))
    assert "\n" not in str(caught.value)


def test_a_recipe_names_a_foreign_teacher_by_its_file_alone(compact, photographs, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"""
        model: {{architecture: anchor, options: {{scale: 2, channels: 8, blocks: 1}}}}
        method: {{name: distillation}}
        teacher: {{file: {compact}}}
        data: {{folder: {photographs}, lr_patch: 16, batch: 2, workers: 0}}
        schedule: {{steps: 2}}
        validation: {{sets: []}}
        out: {tmp_path / "run"}
        """
    )
    student = train(read_recipe(recipe))
    teacher = load_teacher(TeacherSpec(file=compact), 2)
    assert isinstance(teacher.network, SpandrelUpscaler)
    assert student.provenance["teacher"] == {"description": "compact.safetensors", "key": teacher.key}
    assert len(list((labels.cache_folder() / "labels" / teacher.key).glob("*.npy"))) == 3
