"""VGG19 content loss against torchvision's own network."""

import pytest
import torch
from torchvision.models.vgg import cfgs, make_layers

from compress.errors import BadInput
from compress.losses import VggLoss
from compress.losses.perceptual import LAYERS

NUMBERS = {
    "conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10, "conv3_2": 12, "conv3_3": 14, "conv3_4": 16,
    "conv4_1": 19, "conv4_2": 21, "conv4_3": 23, "conv4_4": 25, "conv5_1": 28, "conv5_2": 30, "conv5_3": 32, "conv5_4": 34,
}  # fmt: skip
"""Of VGG19's convolutions among torchvision's features (print(torchvision.models.vgg19().features))."""


@pytest.fixture(scope="module")
def vgg():
    """torchvision's convolutions of VGG19, randomly initialised, with activations that stay of order one."""
    torch.manual_seed(11)
    network = make_layers(cfgs["E"], batch_norm=False).eval().requires_grad_(False)
    for number in NUMBERS.values():
        torch.nn.init.kaiming_normal_(network[number].weight, nonlinearity="relu")
        network[number].bias.uniform_(-0.5, 0.5)
    return network


@pytest.fixture(scope="module")
def save(vgg, tmp_path_factory):
    """Writes the weights up to a layer and returns the file."""
    folder = tmp_path_factory.mktemp("vgg")

    def write(last):
        path = folder / f"to_{last}.pth"
        if not path.exists():
            torch.save({f"features.{key}": value for key, value in vgg[: NUMBERS[last] + 1].state_dict().items()}, path)
        return path

    return write


@pytest.fixture
def images():
    torch.manual_seed(2)
    image, target = torch.rand(2, 2, 3, 32, 40)
    return image.requires_grad_(), target.requires_grad_()


def torchvision_features(network, layer, images, activated):
    """What torchvision's network computes for RGB in [0, 1], the normalisation written out channel by channel."""
    statistics = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
    x = torch.stack([(images[:, i] - mean) / deviation for i, (mean, deviation) in enumerate(statistics)], 1)
    for module in network[: NUMBERS[layer] + 1]:
        x = module(x)
    return x.clamp(min=0) if activated else x


@pytest.mark.parametrize(
    ("layer", "held"), [("conv1_1", "conv1_1"), ("conv1_2", "conv2_2"), ("conv2_2", "conv2_2"), ("conv3_1", "conv3_4")]
)
@pytest.mark.parametrize("activated", [False, True], ids=["before activation", "after"])
def test_the_loss_is_the_distance_of_torchvisions_features(vgg, save, images, layer, held, activated):
    image, target = images
    with torch.no_grad():
        found, wanted = (torchvision_features(vgg, layer, x, activated).double() for x in images)
        squared = VggLoss(layer, after_activation=activated, weights=save(held))(image, target)
        absolute = VggLoss(layer, after_activation=activated, criterion="l1", weights=save(held))(image, target)
    assert squared.item() == pytest.approx((found - wanted).square().mean().item(), rel=1e-4)
    assert absolute.item() == pytest.approx((found - wanted).abs().mean().item(), rel=1e-4)


def test_the_deepest_layer_is_the_default_and_has_torchvisions_network_before_it(vgg, save, images):
    loss = VggLoss(weights=save("conv5_4"))
    layers = loss.features.network.layers
    assert [type(layer) for layer in layers.children()] == [type(layer) for layer in vgg[:35]]
    with torch.no_grad():
        found, wanted = (torchvision_features(vgg, "conv5_4", x, False).double() for x in images)
        assert loss(*images).item() == pytest.approx((found - wanted).square().mean().item(), rel=1e-4)


def test_every_layer_of_vgg19_has_its_place_and_only_the_layers_up_to_it_are_built(vgg, save):
    assert {layer: index for layer, (index, _, _) in LAYERS.items()} == NUMBERS
    for layer in ("conv1_1", "conv1_2", "conv2_1"):
        layers = VggLoss(layer, weights=save("conv2_2")).features.network.layers
        assert len(layers) == NUMBERS[layer] + 1
        assert torch.equal(layers[-1].weight, vgg[NUMBERS[layer]].weight)


def test_scale_multiplies_the_features(save, images):
    plain, scaled = (VggLoss("conv2_1", scale=scale, weights=save("conv2_2")) for scale in (1, 1 / 12.75))
    assert scaled(*images).item() == pytest.approx(plain(*images).item() / 12.75**2, rel=1e-5)
    halved = VggLoss("conv2_1", criterion="l1", scale=0.5, weights=save("conv2_2"))
    whole = VggLoss("conv2_1", criterion="l1", weights=save("conv2_2"))
    assert halved(*images).item() == pytest.approx(0.5 * whole(*images).item(), rel=1e-5)


def test_gradients_reach_the_image_and_neither_the_target_nor_the_network(vgg, save, images):
    image, target = images
    loss = VggLoss("conv2_2", weights=save("conv2_2"))
    loss(image, target).backward()
    assert target.grad is None
    assert all(weight.grad is None and not weight.requires_grad for weight in loss.features.network.parameters())
    plain = image.detach().requires_grad_()
    found, wanted = (torchvision_features(vgg, "conv2_2", x, False) for x in (plain, target.detach()))
    (found - wanted).square().mean().backward()
    torch.testing.assert_close(image.grad, plain.grad, rtol=1e-3, atol=1e-7)


def test_the_network_is_no_part_of_what_is_trained_or_saved_but_moves_along(save, images):
    loss = VggLoss("conv1_2", weights=save("conv2_2")).train()
    assert not list(loss.parameters())
    assert not loss.state_dict()
    assert not loss.features.network.training
    single = loss(*images).item()
    double = loss.double()(*(x.double() for x in images))
    assert double.dtype == torch.float64
    assert double.item() == pytest.approx(single, rel=1e-5)


def test_the_precision_is_the_runs_own_and_not_that_of_the_region_around_the_call(save, images):
    loss = VggLoss("conv3_4", weights=save("conv3_4"))
    image, target = images
    outside = loss(image, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(image, target), outside)
        assert loss(image.bfloat16(), target).item() == pytest.approx(outside.item(), rel=0.02)
    loss.features.low_precision = True
    low = loss(image, target)
    low.backward()
    assert low.dtype == torch.float32
    assert low.item() != outside.item()
    assert low.item() == pytest.approx(outside.item(), rel=0.02)
    assert image.grad.isfinite().all()


def test_images_of_two_shapes_are_refused(save, images):
    with pytest.raises(ValueError, match="one shape"):
        VggLoss("conv1_1", weights=save("conv1_1"))(images[0], images[1][:1])


@pytest.mark.parametrize("layer", ["conv6_1", "conv1_3", "relu5_4", "34", ""])
def test_a_layer_that_vgg19_does_not_have_is_refused(layer):
    with pytest.raises(BadInput, match=rf"out of conv1_1, conv1_2, conv2_1.* conv5_4, found '{layer}'"):
        VggLoss(layer)


def test_a_layer_that_the_file_does_not_hold_is_refused_with_those_that_it_holds(save):
    with pytest.raises(BadInput, match=r"up to conv3_1, found conv1_1 to conv2_2 in .*to_conv2_2.pth: choose one of"):
        VggLoss("conv3_1", weights=save("conv2_2"))


def _gap(weights):
    del weights["features.2.bias"]


def _other_width(weights):
    weights["features.2.weight"] = weights["features.2.weight"][:32]


def _not_a_tensor(weights):
    weights["features.2.weight"] = [1.0]


@pytest.mark.parametrize("damage", [_gap, _other_width, _not_a_tensor])
def test_layers_behind_a_gap_in_the_file_do_not_count(damage, save, tmp_path):
    weights = torch.load(save("conv2_2"), weights_only=True)
    damage(weights)
    torch.save(weights, tmp_path / "gap.pth")
    VggLoss("conv1_1", weights=tmp_path / "gap.pth")
    with pytest.raises(BadInput, match="found conv1_1 to conv1_1"):
        VggLoss("conv2_1", weights=tmp_path / "gap.pth")


def _vgg16():
    return make_layers(cfgs["D"][:14], batch_norm=False)


def _with_batch_norm():
    return make_layers(cfgs["E"][:5], batch_norm=True)


@pytest.mark.parametrize("other", [_vgg16, _with_batch_norm])
def test_a_relative_of_vgg19_is_not_taken_for_it(other, tmp_path):
    torch.save({f"features.{key}": value for key, value in other().state_dict().items()}, tmp_path / "other.pth")
    with pytest.raises(BadInput, match="found other weights"):
        VggLoss("conv1_1", weights=tmp_path / "other.pth")


@pytest.mark.parametrize("content", [[1, 2], {}, {"0.weight": torch.zeros(64, 3, 3, 3)}, {3: 4}])
def test_a_file_that_holds_something_else_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(BadInput, match=r"found other weights in .*other.pth: give torchvision's vgg19-dcbb9e9d.pth"):
        VggLoss("conv1_1", weights=tmp_path / "other.pth")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match="found no file at"):
        VggLoss("conv1_1", weights=tmp_path / "none.pth")


def test_torchvisions_own_file_is_taken_from_its_own_folder(save, images, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "vgg19-dcbb9e9d.pth").symlink_to(save("conv2_2"))
    assert torch.equal(VggLoss("conv2_2")(*images), VggLoss("conv2_2", weights=save("conv2_2"))(*images))
    with pytest.raises(BadInput, match=r"found conv1_1 to conv2_2 in vgg19-dcbb9e9d.pth"):
        VggLoss()


def test_without_weights_a_sentence_says_which_file_goes_where(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth").write_bytes(b"half a file")
    with pytest.raises(
        BadInput,
        match=rf"put vgg19-dcbb9e9d.pth into {tmp_path}/hub/checkpoints .* \(method.options.content_weights\)",
    ):
        VggLoss()


def test_published_weights_tell_small_errors_from_large_ones(shared_data):
    path = shared_data / "perceptual" / "vgg19_features_to_conv3_4.pth"
    if not path.is_file():
        pytest.skip("shared/data/perceptual is not here")
    from compress.data.benchmarks import open_benchmark

    _, _, hr = next(iter(open_benchmark("Set5", 4, shared_data / "eval")))
    truth = torch.from_numpy(hr[:96, :96].copy()).permute(2, 0, 1)[None] / 255
    blurred = torch.nn.functional.avg_pool2d(truth, 5, 1, 2, count_include_pad=False)
    brighter = truth + (blurred - truth).square().mean().sqrt()  # as far in PSNR, but as sharp
    loss = VggLoss("conv3_4", scale=1 / 12.75, weights=path)
    distances = [loss(x, truth).item() for x in (truth, brighter, blurred, torch.full_like(truth, 0.5))]
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert distances[2] > 3 * distances[1]
    with pytest.raises(BadInput, match="up to conv5_4, found conv1_1 to conv3_4"):
        VggLoss(weights=path)
