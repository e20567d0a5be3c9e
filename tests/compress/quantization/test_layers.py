"""The network that trains and its deploy form: batch norm folded, and each convolution found in both."""

import pytest
import torch
from torch import nn

from compress.deploy import Conv, DeployGraph
from compress.models import ARCHITECTURES, build
from compress.models.edsr import EDSR, EDSRConfig
from compress.quantization.layers import layers_of
from tests.compress.quantization.conftest import SMALL, VARIANTS, assert_same_graph, network_of

FOLDED = [
    {**SMALL, "batch_norm": norm, "trunk_end": end, "activation": activation, "output": output, "block_channels": 16}
    for norm in (True, False)
    for end in ("batch_norm", "activation", "none")
    for activation, output in (("prelu", "linear"), ("relu", "tanh"))
]


@pytest.mark.parametrize("options", FOLDED)
def test_folding_batch_norm_leaves_a_network_that_ships_the_same_bits(options):
    torch.manual_seed(0)
    network = build("srresnet", options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    folded = network.eval().folded()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert_same_graph(network.deploy(), folded.deploy())
    lr = torch.rand(1, 3, 10, 12)
    with torch.no_grad():
        assert torch.allclose(network(lr), folded(lr), atol=1e-5)


def test_every_architecture_that_ships_can_be_folded():
    for name, known in ARCHITECTURES.items():
        assert hasattr(known.network, "deploy") == hasattr(known.network, "folded"), name


@pytest.mark.parametrize("name", list(VARIANTS))
def test_every_convolution_that_ships_is_found_in_the_network(name):
    network = network_of(name).folded()
    layers = layers_of(network)
    convs = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    assert sorted(layer.conv for layer in layers.values()) == sorted(convs)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    for step, operator, _ in network.deploy().steps():
        if isinstance(operator, Conv):
            weight, bias = layers[step].weights(network)
            assert torch.equal(weight, operator.weight), step
            assert torch.equal(bias, operator.bias), step


def test_a_deploy_form_that_mixes_weights_is_refused():
    class Mixing(EDSR):
        def deploy(self) -> DeployGraph:
            self.tail.weight.data[1] = self.tail.weight[0] - self.tail.weight[2]
            self.head.bias.data.copy_(self.head.weight.sum((1, 2, 3)))
            return super().deploy()

    with pytest.raises(ValueError, match="no reordered convolution"):
        layers_of(Mixing(EDSRConfig(**SMALL)))
