"""LPIPS as a loss against the lpips package's own forward pass and the metric."""

from pathlib import Path

import lpips
import pytest
import torch
from torchvision.models import squeezenet1_1

from compress import metrics
from compress.errors import BadInput
from compress.losses import LpipsLoss


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A torch.hub folder with randomly initialised weights of SqueezeNet where torchvision looks for them."""
    torch.manual_seed(4)
    home = tmp_path_factory.mktemp("torch_home")
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(squeezenet1_1().state_dict(), folder / "squeezenet1_1-b8a52dc0.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(home))
        yield folder / "squeezenet1_1-b8a52dc0.pth"


@pytest.fixture
def images():
    torch.manual_seed(2)
    image, target = torch.rand(2, 2, 3, 32, 40)
    return image.requires_grad_(), target.requires_grad_()


def reference(backbone, image, target):
    """LPIPS v0.1 of images in [-1, 1], layer by layer, with torchvision's SqueezeNet and the lpips package's weights."""
    network = squeezenet1_1().eval()
    network.load_state_dict(torch.load(backbone, weights_only=True))
    network = network.features.double()
    heads = torch.load(Path(lpips.__file__).parent / "weights" / "v0.1" / "squeeze.pth", "cpu", weights_only=True)
    shift, scale = (torch.tensor(x).double().view(3, 1, 1) for x in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    x, y = ((images.double() - shift) / scale for images in (image, target))
    total, level = 0.0, 0
    for number, module in enumerate(network):
        x, y = module(x), module(y)
        if number in (
            1,
            4,
            7,
            9,
            10,
            11,
            12,
        ):  # the first ReLU, the Fire modules before the poolings and the last four
            unit_x, unit_y = (maps / (maps.square().sum(1, keepdim=True).sqrt() + 1e-10) for maps in (x, y))
            weight = heads[f"lin{level}.model.1.weight"].double()
            total = total + ((unit_x - unit_y).square() * weight).sum(1).mean((1, 2))
            level += 1
    assert level == 7
    return total


def test_the_loss_and_its_gradient_equal_lpips_computed_layer_by_layer(backbone, images):
    image, target = images
    value = LpipsLoss("squeeze")(image, target)
    value.backward()
    plain = image.detach().requires_grad_()
    wanted = reference(backbone, 2 * plain - 1, 2 * target.detach() - 1).mean()
    wanted.backward()
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(image.grad, plain.grad, rtol=1e-3, atol=1e-7)


def test_gradients_reach_the_image_and_neither_the_target_nor_the_network(backbone, images):
    image, target = images
    loss = LpipsLoss("squeeze").train()
    loss(image, target).backward()
    assert image.grad.abs().max() > 0
    assert target.grad is None
    network = loss.distance.network
    assert all(weight.grad is None and not weight.requires_grad for weight in network.parameters())
    assert not any(module.training for module in network.modules()), "dropout would run"
    assert not list(loss.parameters())
    assert not loss.state_dict()
    assert loss(target, target).item() == 0


def test_the_gradient_is_finite_where_no_feature_fires(backbone, images, tmp_path, monkeypatch):
    weights = torch.load(backbone, weights_only=True)
    weights["features.0.bias"].fill_(-50.0)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(weights, tmp_path / "hub" / "checkpoints" / backbone.name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    image, target = images
    LpipsLoss("squeeze")(image, target).backward()
    assert image.grad.isfinite().all()


def test_the_precision_is_the_runs_own_and_not_that_of_the_region_around_the_call(backbone, images):
    loss = LpipsLoss("squeeze")
    image, target = images
    outside = loss(image, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(image, target), outside)
        assert loss(image.bfloat16(), target).item() == pytest.approx(outside.item(), rel=0.05)
    loss.distance.low_precision = True
    low = loss(image, target)
    low.backward()
    assert low.dtype == torch.float32
    assert low.item() != outside.item()
    assert low.item() == pytest.approx(outside.item(), rel=0.05)
    assert image.grad.isfinite().all()


def test_images_that_vanish_inside_the_backbone_are_refused(backbone):
    with pytest.raises(BadInput, match="at least 32 pixels for the LPIPS loss, found 24"):
        LpipsLoss.check_patch(24)
    LpipsLoss.check_patch(32)
    loss = LpipsLoss("squeeze")
    with pytest.raises(ValueError, match="at least 32"):
        loss(torch.zeros(1, 3, 31, 64), torch.zeros(1, 3, 31, 64))
    with pytest.raises(ValueError, match="one shape"):
        loss(torch.zeros(1, 3, 32, 32), torch.zeros(2, 3, 32, 32))


def test_without_weights_a_sentence_says_which_file_goes_where(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth").write_bytes(b"not weights")
    with pytest.raises(BadInput, match=rf"put alexnet-owt-7be5be79.pth into {tmp_path}/hub/checkpoints"):
        LpipsLoss("alex")


def test_with_published_weights_the_loss_is_the_metric(shared_data, monkeypatch):
    if not (shared_data / "torch_home").is_dir():
        pytest.skip("shared/data/torch_home is not here")
    from compress.data.benchmarks import open_benchmark

    monkeypatch.setenv("TORCH_HOME", str(shared_data / "torch_home"))
    metrics.lpips_metric.cache_clear()
    _, lr, hr = next(iter(open_benchmark("Set5", 2, shared_data / "eval")))
    rough = lr[:64, :64].repeat(2, axis=0).repeat(2, axis=1)
    image, target = (torch.from_numpy(x.copy()).permute(2, 0, 1)[None] / 255 for x in (rough, hr[:128, :128]))
    wanted = metrics.lpips_metric("squeeze")(rough, hr[:128, :128])
    metrics.lpips_metric.cache_clear()
    image.requires_grad_()
    value = LpipsLoss("squeeze")(image, target)
    assert value.item() == pytest.approx(wanted, rel=1e-4)
    value.backward()
    closer = image.detach() - 0.002 * image.grad.sign()
    assert LpipsLoss("squeeze")(closer, target) < value
