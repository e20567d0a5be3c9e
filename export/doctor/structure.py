"""What can be told from a student's graph alone: operators, widths, kernels, cost, tiles, masks."""

from collections.abc import Iterator

from compress.checkpoint import Student
from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, PReLU, Repeat, Sigmoid
from export.audit.findings import Finding

GROUP = 8  # channels that kernels for phones compute at once
LARGE_KERNEL = 7
FRAMES = {"720p": (720, 1280), "1080p": (1080, 1920)}
RATE = 30  # images a second, for video
BUDGET = 1e12  # multiply-accumulates a second: all of an accelerator of 2 TOPS
TILE = 128  # LR pixels of a side, the usual tile of an app
MUCH_OVERLAP = 0.5  # of a tile's own pixels
DOMINANT = 0.25  # of all multiply-accumulates
INTEGER_FORMS = (Add, Clip, Conv, DepthToSpace, PReLU, Repeat, Sigmoid)


def structural_findings(student: Student, graph: DeployGraph) -> Iterator[Finding]:
    """All that the graph and the masks tell."""
    yield from _forms(graph)
    yield from _widths(graph)
    yield from _activations(graph)
    yield from _kernels(graph)
    yield from _resolution(graph)
    yield from _cost(graph)
    yield from _tiles(graph)
    yield from mask_findings(student)


def _forms(graph: DeployGraph) -> Iterator[Finding]:
    others = [(name, type(step).__name__) for name, step, _ in graph.steps() if not isinstance(step, INTEGER_FORMS)]
    if others:
        yield Finding(
            "fault",
            others[0][0],
            f"{len(others)} steps without an int8 form: {', '.join(sorted({kind for _, kind in others}))}",
            "accelerators for integers cannot run the file, and the CPU is slower in float",
            "export it in float16, or distil a student of convolutions from it",
        )


def _widths(graph: DeployGraph) -> Iterator[Finding]:
    fixed = _before_shuffle(graph)
    widths: dict[int, list[str]] = {}
    for name, step, _ in graph.steps():
        if isinstance(step, Conv) and name not in fixed and len(step.weight) % GROUP:
            widths.setdefault(len(step.weight), []).append(name)
    for width, names in widths.items():
        up = -(-width // GROUP) * GROUP
        yield Finding(
            "warning",
            names[0],
            f"{width} channels in {len(names)} {'layer' if len(names) == 1 else 'layers'}, no multiple of {GROUP}",
            f"kernels compute channels {GROUP} or 16 at a time, so {width} take as long as {up}",
            f"train with {up} channels for the same price, or {up - GROUP or up} for a lower one "
            "(`python -m compress.pruning.channels`)",
        )


def _before_shuffle(graph: DeployGraph) -> set[str]:
    """Steps whose number of channels the scale decides: what depth-to-space, or the output, is made of."""
    names = {
        graph.output,
        *(graph.inputs[name][0] for name, step, _ in graph.steps() if isinstance(step, DepthToSpace)),
    }
    for name, step, inputs in reversed(list(graph.steps())):
        if name in names and not isinstance(step, Conv):
            names.update(inputs)
    return names


def _activations(graph: DeployGraph) -> Iterator[Finding]:
    prelu = [(name, step.slope) for name, step, _ in graph.steps() if isinstance(step, PReLU) and step.slope]
    if prelu:
        yield Finding(
            "warning",
            prelu[0][0],
            f"{len(prelu)} PReLU, slope {prelu[0][1]:.3g} in the first",
            "int8 PReLU is no operator of XNNPACK, so each one becomes two ReLUs and a subtraction: three passes over "
            "the values, where ReLU is part of its convolution for nothing",
            "train with ReLU",
        )
    for name, step, _ in graph.steps():
        if isinstance(step, Sigmoid):
            yield Finding(
                "warning",
                name,
                "a sigmoid or tanh at the output",
                "LiteRT's own int8 kernel asks for a scale of 1/256, so the int8 file runs with XNNPACK alone; engines "
                "round it differently, by 1 LSB",
                "train with a linear output, which is clipped",
            )


def _kernels(graph: DeployGraph) -> Iterator[Finding]:
    total, costs = graph.macs(1, 1), _costs(graph)
    for name, step, _ in graph.steps():
        if isinstance(step, Conv) and step.weight.shape[-1] >= LARGE_KERNEL:
            side = step.weight.shape[-1]
            yield Finding(
                "warning",
                name,
                f"a {side}x{side} kernel, {costs[name] / total:.0%} of all multiply-accumulates",
                f"it costs {side * side / 9:.0f} times as much as a 3x3 one, for which alone GPUs and NPUs have their "
                f"fastest kernels, and adds {step.padding} pixels to the overlap of tiles",
                "use 3x3, or two of them",
            )


def _resolution(graph: DeployGraph) -> Iterator[Finding]:
    total, costs, resolution = graph.macs(1, 1), _costs(graph), _resolutions(graph)
    late = [name for name, step, _ in graph.steps() if isinstance(step, Conv) and resolution[name] > 1]
    share = sum(costs[name] for name in late) / total
    if share >= DOMINANT:
        yield Finding(
            "warning",
            late[0],
            f"{len(late)} convolutions after a pixel shuffle, {share:.0%} of all multiply-accumulates",
            "at the larger resolution every weight is used four times as often per shuffle of 2, and the values in "
            "between are the largest of the network",
            "let the pixel shuffle be the last operator",
        )


def _cost(graph: DeployGraph) -> Iterator[Finding]:
    costs = {name: graph.macs(-(-h // graph.scale), -(-w // graph.scale)) for name, (h, w) in FRAMES.items()}
    heavy = costs["720p"] * RATE > BUDGET
    text = ", ".join(f"{cost / 1e9:.1f} GMAC for {name} output" for name, cost in costs.items())
    yield Finding(
        "warning" if heavy else "note",
        "student",
        text,
        f"{RATE} images a second at 720p take {costs['720p'] * RATE / 1e12:.2f} TMAC/s; an accelerator of 2 TOPS has 1",
        "fewer channels count squared, fewer blocks once: distil a smaller student" if heavy else "nothing",
    )


def _tiles(graph: DeployGraph) -> Iterator[Finding]:
    radius = graph.receptive_radius()
    if radius is None:
        yield Finding(
            "warning",
            "student",
            "an output that depends on the whole tile",
            "no overlap makes a tiled photograph the same as a whole one: seams are blended, not gone",
            "use a convolutional student for photographs that must be tiled",
        )
        return
    more = ((TILE + 2 * radius) / TILE) ** 2 - 1
    growth = {}
    resolution = _resolutions(graph)
    for name, step, _ in graph.steps():
        if isinstance(step, Conv) and step.padding:
            growth[name] = step.padding / resolution[name]
    largest = sorted(growth, key=lambda name: -growth[name])[:3]
    yield Finding(
        "warning" if more > MUCH_OVERLAP else "note",
        largest[0] if largest else "student",
        f"receptive radius {radius}: {', '.join(f'{name} adds {growth[name]:g}' for name in largest)}",
        f"tiles of {TILE}x{TILE} must overlap by {radius} pixels on each side to hide their seams, {more:.0%} more pixels "
        "to compute",
        "use larger tiles, or smaller kernels and fewer layers" if more > MUCH_OVERLAP else "nothing",
    )


def mask_findings(student: Student) -> Iterator[Finding]:
    """Of a student with masks, whether it can ship or not."""
    if student.sparsity is None:
        return
    yield Finding(
        "note",
        next(iter(student.sparsity.layers)),
        f"{student.sparsity.pattern} masks, {student.sparsity.sparsity():.0%} zeros in {len(student.sparsity.layers)} layers",
        "no phone's kernel profits: XNNPACK skips zeros of 1x1 float convolutions alone, 2:4 is for NVIDIA's tensor cores; "
        "the file compresses better, and that is all",
        "remove whole channels for speed (`python -m compress.pruning.channels`)",
    )


def _costs(graph: DeployGraph) -> dict[str, int]:
    """Multiply-accumulates per LR pixel of each convolution."""
    resolution = _resolutions(graph)
    return {name: o.weight.numel() * resolution[name] ** 2 for name, o, _ in graph.steps() if isinstance(o, Conv)}


def _resolutions(graph: DeployGraph) -> dict[str, int]:
    """Of every value, as a multiple of the LR image's."""
    resolution = {INPUT: 1}
    for name, step, inputs in graph.steps():
        resolution[name] = resolution[inputs[0]] * (step.block if isinstance(step, DepthToSpace) else 1)
    return resolution
