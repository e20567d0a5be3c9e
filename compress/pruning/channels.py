"""Which channels to keep; and `python -m compress.pruning.channels student.pt --channels 16 --out pruned.pt`, in one cut.

A cut without training costs much quality: go on with training from the pruned student, or use the technique
`channels` (compress.pruning.channel_penalty), which empties the channels before it removes them.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compress.checkpoint import Student, load_student, save_student
from compress.cli import command_line
from compress.errors import BadInput
from compress.models.channels import ChannelGroup
from compress.options import checked
from compress.pruning.channel_removal import groups_of, remove_channels

MULTIPLE = 8
Criterion = Literal["l1", "l2", "batch_norm"]


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Channels to keep, by the option of the architecture's config that counts them; 0 leaves an option as it is.

    Attributes:
        channels: of the residual stream, or of all layers of a plain network.
        block_channels: inside the residual blocks.
        stage_channels: after the upsampling stages.
        distilled_channels: that BSRN's steps keep for the end of their block.
        attention_channels: of the spatial attention of RLFN and BSRN.
    """

    channels: int = 0
    block_channels: int = 0
    stage_channels: int = 0
    distilled_channels: int = 0
    attention_channels: int = 0

    def by_option(self) -> dict[str, int]:
        """What is asked for, by option."""
        widths = {field.name: getattr(self, field.name) for field in dataclasses.fields(Widths)}
        return {option: width for option, width in widths.items() if width}


def select_channels(
    network: nn.Module, widths: Widths, *, multiple: int = MULTIPLE, criterion: Criterion = "l1"
) -> dict[str, Tensor]:
    """The channels to keep of every group that gets narrower, ascending, by the group's name.

    Args:
        network: of `compress.models`.
        widths: channels to keep.
        multiple: they are rounded to the nearest multiple of it, never below it.
        criterion: see `importance`; the channels of the lowest go.

    Raises:
        BadInput: an option that the network does not have, a width above the present one, batch norm as the criterion
            of a network without, or nothing to remove.
    """
    groups = groups_of(network)
    sizes = {group.option: group.size for group in groups}
    asked = widths.by_option()
    for option, width in asked.items():
        if option not in sizes:
            raise BadInput(
                f"expected widths for {', '.join(sizes)} of this network, found one for {option!r}: leave it out."
            )
        if width > sizes[option]:
            raise BadInput(
                f"expected {option} of at most {sizes[option]}, what the network has, found {width}: ask for fewer."
            )
    if criterion == "batch_norm" and not any(group.norms for group in groups if group.option in asked):
        raise BadInput("expected batch norms to judge the channels by, found none over them: use the criterion l1.")
    targets = {option: rounded_width(width, sizes[option], multiple) for option, width in asked.items()}
    plain = network.merged()
    kept = {
        group.name: importance(plain, group, criterion).topk(targets[group.option]).indices.sort().values
        for group in groups
        if targets.get(group.option, group.size) < group.size
    }
    if not kept:
        found = ", ".join(f"{option} {width}" for option, width in targets.items()) or "none"
        raise BadInput(
            f"expected widths below {', '.join(f'{o} {s}' for o, s in sizes.items())}, found {found} in multiples of "
            f"{multiple}: nothing would be removed; ask for fewer channels."
        )
    return kept


def rounded_width(asked: int, size: int, multiple: int) -> int:
    """The multiple nearest to `asked`, halves up, at least one multiple, at most `size`."""
    return min(size, max(multiple, (asked + multiple // 2) // multiple * multiple))


@torch.no_grad()
def importance(network: nn.Module, group: ChannelGroup, criterion: Criterion) -> Tensor:
    """(size,) score of every channel, summed over the layers that the group ties, on the CPU.

    'l1' and 'l2' are the norms of a channel's weights in a producer (Li et al., "Pruning Filters for Efficient
    ConvNets", ICLR 2017). 'batch_norm' is the size of its factor in the batch norms (Liu et al., "Network Slimming",
    ICCV 2017), which decides what passes where there is one; groups without are judged by 'l1'.
    """
    if criterion == "batch_norm" and group.norms:
        return torch.stack([network.get_submodule(name).weight.abs().cpu() for name in group.norms]).sum(0)
    order = 2 if criterion == "l2" else 1
    rows = [network.get_submodule(producer.layer).weight.reshape(group.size, -1) for producer in group.producers]
    return torch.stack([row.norm(order, dim=1).cpu() for row in rows]).sum(0)


def removal_summary(network: nn.Module, kept: Mapping[str, Tensor], criterion: Criterion) -> dict[str, Any]:
    """What a removal does, for provenance: widths before and after by option, and how the channels were chosen."""
    cut = [group for group in groups_of(network) if group.name in kept]
    return {
        "criterion": criterion,
        "widths": {group.option: [group.size, len(kept[group.name])] for group in cut},
    }


def main(
    student: Path,
    *,
    out: Path,
    channels: int = 0,
    block_channels: int = 0,
    stage_channels: int = 0,
    distilled_channels: int = 0,
    attention_channels: int = 0,
    multiple: int = MULTIPLE,
    criterion: Criterion = "l1",
) -> None:
    """Removes the least important channels of a student in one cut. A width of 0 leaves an option as it is.

    Args:
        student: a float student.pt.
        out: the smaller student.pt to write.
        channels: width to keep of the residual stream, or of all layers of a plain network.
        block_channels: width to keep inside the residual blocks.
        stage_channels: width to keep after the upsampling stages.
        distilled_channels: width to keep of what BSRN's steps hand to the end of their block.
        attention_channels: width to keep of the spatial attention of RLFN and BSRN.
        multiple: widths are rounded to multiples of it.
        criterion: by what the channels are judged.
    """
    options = {
        "channels": channels,
        "block_channels": block_channels,
        "stage_channels": stage_channels,
        "distilled_channels": distilled_channels,
        "attention_channels": attention_channels,
    }
    widths = checked(Widths, options, "python -m compress.pruning.channels")
    if multiple < 1:
        raise BadInput(f"expected --multiple to be positive, found {multiple}: use 8, or 1 for any width.")
    given = load_student(student)
    if given.quantization or given.sparsity:
        found = "an int8 one" if given.quantization else "one with masks"
        raise BadInput(
            f"expected a dense float student to remove channels from, found {found} in {student}: "
            "remove channels first, then mask or quantize."
        )
    network = given.network()
    kept = select_channels(network, widths, multiple=multiple, criterion=criterion)
    summary = removal_summary(network, kept, criterion)
    provenance = {**given.provenance, "removed_channels": {**summary, "from_sha256": given.file_hash}}
    smaller = Student.of(remove_channels(network, kept), provenance=provenance)
    save_student(smaller, out)
    cuts = ", ".join(f"{option} {before} to {after}" for option, (before, after) in summary["widths"].items())
    before, after = (sum(p.numel() for p in n.parameters()) for n in (network, smaller.network()))
    print(f"wrote {out}: {cuts}; {before:,} to {after:,} parameters")


if __name__ == "__main__":
    command_line(main)
