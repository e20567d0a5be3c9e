"""How much each residual block of a network matters. A block computes x + f(x); f is its branch, x the stream.

Everything is measured in eval mode, as the network ships: running statistics of batch norm, output clipped to [0, 1].
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from compress.data.patches import Batch
from compress.errors import BadInput
from compress.models.edsr import EDSR
from compress.models.srresnet import SRResNet

Criterion = Literal["norm", "loss", "taylor", "last", "near_zero"]
WITHOUT_PATCHES = ("last", "near_zero")  # criteria that look at no image
RESIDUAL = (SRResNet, EDSR)  # whose `blocks` are all x + f(x), and nothing else looks at one of them
NEAR = 0.1  # of the root mean square of all blocks' convolution weights


def residual_blocks(network: nn.Module) -> list[nn.Module]:
    """The residual blocks of the network, in order.

    Raises:
        BadInput: an architecture that has none that can be taken out.
    """
    if not isinstance(network, RESIDUAL):
        known = ", ".join(kind.__name__ for kind in RESIDUAL)
        raise BadInput(
            f"expected a network of residual blocks ({known}), found {type(network).__name__}: "
            "its blocks cannot be taken out; choose a smaller one and distil."
        )
    return list(network.blocks)


def block_scores(network: nn.Module, batches: Sequence[Batch], criterion: Criterion) -> list[float]:
    """A score for every residual block; the lower, the less the network needs it.

    - norm: ||f(x)|| / ||x||, mean over the patches.
    - loss: mean L1 to the HR patches without the block minus with it; may be negative.
    - taylor: |sum of dL/df * f| of a patch's L1 loss L over all values of its branch output f, mean over the patches:
      the first-order estimate of how L changes when the branch goes (Molchanov et al., "Pruning Convolutional Neural
      Networks for Resource Efficient Inference", ICLR 2017, eq. 8). The absolute value is taken per patch, because in
      a trained network the sum over all patches is near 0: the branch's scale is already at its best.
    - last: by position, the first block highest; what "removing blocks" means where none is chosen.
    - near_zero: 1 - the share of the block's convolution weights below `NEAR` times the root mean square of those of
      all blocks.

    Args:
        network: in eval mode.
        batches: LR and HR patches, on the network's device; none for those of `WITHOUT_PATCHES`.
        criterion: one of the above.

    Raises:
        BadInput: a network without residual blocks, or an unknown criterion.
        ValueError: no batches for a criterion that needs some.
    """
    blocks = residual_blocks(network)
    if criterion not in get_args(Criterion):
        raise BadInput(
            f"expected a criterion out of {', '.join(get_args(Criterion))}, found {criterion!r}: choose one."
        )
    if criterion == "last":
        return [float(len(blocks) - i) for i in range(len(blocks))]
    if criterion == "near_zero":
        return _share_away_from_zero(blocks)
    if not batches:
        raise ValueError(f"the criterion {criterion!r} needs patches to judge on")
    measure = {"norm": _relative_norms, "loss": _loss_increases, "taylor": _taylor}[criterion]
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        sums = torch.stack([measure(network, blocks, batch) for batch in batches]).sum(0)
    return (sums / sum(len(batch["lr"]) for batch in batches)).tolist()


@torch.no_grad()
def _relative_norms(network: nn.Module, blocks: list[nn.Module], batch: Batch) -> Tensor:
    """(blocks,) sums over the patches."""
    found: dict[nn.Module, Tensor] = {}

    def see(block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        (x,) = inputs
        norms = (output - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        found[block] = norms.double().sum()

    with _watching(blocks, see):
        network(batch["lr"])
    return torch.stack([found[block] for block in blocks])


@torch.no_grad()
def _loss_increases(network: nn.Module, blocks: list[nn.Module], batch: Batch) -> Tensor:
    """(blocks,) sums over the patches."""
    whole, without = _patch_losses(network, batch).sum(), []
    for block in blocks:
        with _watching([block], lambda _, inputs, __: inputs[0]):
            without.append(_patch_losses(network, batch).sum())
    return torch.stack(without) - whole


def _taylor(network: nn.Module, blocks: list[nn.Module], batch: Batch) -> Tensor:
    """(blocks,) sums over the patches."""
    branches: dict[nn.Module, Tensor] = {}

    def split(block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """The block's output as stream plus branch, so that the branch has a gradient of its own."""
        branches[block] = output - inputs[0]
        return inputs[0] + branches[block]

    with torch.enable_grad(), _watching(blocks, split):
        losses = _patch_losses(network, batch)
    branch = [branches[block] for block in blocks]
    gradients = torch.autograd.grad(losses.sum(), branch)  # patches do not mix in eval mode
    return torch.stack(
        [(g * f.detach()).double().flatten(1).sum(1).abs().sum() for g, f in zip(gradients, branch, strict=True)]
    )


def _patch_losses(network: nn.Module, batch: Batch) -> Tensor:
    """(N,) mean absolute errors."""
    return F.l1_loss(network(batch["lr"]), batch["hr"], reduction="none").double().flatten(1).mean(1)


@contextlib.contextmanager
def _watching(blocks: list[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    handles: list[RemovableHandle] = [block.register_forward_hook(hook) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _share_away_from_zero(blocks: list[nn.Module]) -> list[float]:
    weights = [
        torch.cat([module.weight.flatten() for module in block.modules() if isinstance(module, nn.Conv2d)])
        for block in blocks
    ]
    near = NEAR * torch.cat(weights).square().mean().sqrt()
    return [float((weight.abs() >= near).double().mean()) for weight in weights]
