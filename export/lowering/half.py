"""A network in float16 between images of float32."""

from torch import Tensor, nn


class Half(nn.Module):
    """The network, changed to weights and arithmetic of float16; takes and gives float32."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.half()

    def forward(self, lr: Tensor) -> Tensor:
        return self.network(lr.half()).float()
