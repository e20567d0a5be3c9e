"""Physical removal of channels: the smaller network of the same architecture, driven by its channel groups alone."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compress.errors import BadInput
from compress.models.channels import ChannelGroup

Kept = Mapping[str, Sequence[int] | Tensor]


def groups_of(network: nn.Module) -> list[ChannelGroup]:
    """The channel groups of the network, branches merged.

    Raises:
        BadInput: an architecture that declares none.
    """
    plain = network.merged()
    if not hasattr(plain, "channel_groups"):
        raise BadInput(
            f"expected a convolutional network to remove channels from, found {type(plain).__name__}: "
            "its widths are tied to its attention heads; choose smaller ones and distil."
        )
    return plain.channel_groups()


@torch.no_grad()
def remove_channels(network: nn.Module, kept: Kept) -> nn.Module:
    """The network without the channels that are not kept, merged, with the widths of its config changed accordingly.

    It computes what the given network computes in eval mode once the removed channels are zero: their producers'
    weights and biases, and their batch norms' weights and biases.

    Args:
        network: of `compress.models`; it is left as it is.
        kept: channels by the name of their group (`ChannelGroup.name`), in any order; a group left out stays whole.

    Raises:
        BadInput: a group that would lose all its channels, groups of one option cut to several widths, or groups and
            channels that the network does not have.
    """
    plain = network.merged()
    groups = groups_of(plain)
    masks = _masks(groups, kept)
    widths: dict[str, int] = {}
    for group in groups:
        width = int(masks[group.name].sum())
        if widths.setdefault(group.option, width) != width:
            raise BadInput(
                f"expected as many kept channels in all groups of {group.option!r}, found {widths[group.option]} and, "
                f"in {group.name}, {width}: keep equally many."
            )
    outputs, inputs = _layer_masks(groups, masks, plain.state_dict())
    smaller = type(plain)(dataclasses.replace(plain.config, **widths))
    weights = {}
    for key, value in plain.state_dict().items():
        layer = key.rpartition(".")[0]
        if layer in outputs and value.dim():
            value = value[outputs[layer].to(value.device)]
        if layer in inputs and key.endswith(".weight"):
            value = value[:, inputs[layer].to(value.device)]
        weights[key] = value.clone()
    smaller.load_state_dict(weights)
    reference = next(plain.parameters())
    return smaller.to(reference.device, reference.dtype).train(plain.training)


def _masks(groups: list[ChannelGroup], kept: Kept) -> dict[str, Tensor]:
    """(size,) bool for every group, by name: True where the channel is kept."""
    sizes = {group.name: group.size for group in groups}
    if unknown := sorted(set(kept) - set(sizes)):
        raise BadInput(f"expected channel groups out of {', '.join(sizes)}, found {unknown[0]!r}: correct the name.")
    masks = {}
    for name, size in sizes.items():
        indices = torch.as_tensor(kept.get(name, range(size)), dtype=torch.long, device="cpu")
        if not len(indices):
            raise BadInput(f"expected at least one channel to keep in {name}, found none: keep more channels.")
        if indices.min() < 0 or indices.max() >= size:
            found = int(indices.min() if indices.min() < 0 else indices.max())
            raise BadInput(f"expected channels 0 to {size - 1} of {name}, found {found}: correct the list.")
        masks[name] = torch.zeros(size, dtype=torch.bool).index_fill(0, indices, True)
    return masks


def _layer_masks(
    groups: list[ChannelGroup], masks: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What is kept of the outputs and of the inputs of every layer that a group names."""
    outputs: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    for group in groups:
        mask = masks[group.name]
        for producer in group.producers:
            outputs[producer.layer] = mask.repeat_interleave(producer.copies)
        outputs |= dict.fromkeys(group.norms, mask)
        for consumer in group.consumers:
            every = torch.ones(weights[f"{consumer.layer}.weight"].shape[1], dtype=torch.bool)
            mine = inputs.setdefault(consumer.layer, every)
            mine[consumer.offset : consumer.offset + group.size] = mask
    return outputs, inputs
