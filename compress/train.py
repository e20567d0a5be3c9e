"""Training: `python -m compress.train recipes/NAME.yaml`, alone or under torchrun.

Every option of the recipe can be changed on the command line, as in `--schedule.steps 1000`. A run that was stopped or
killed goes on where it last saved when the same command is given again.
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from compress.allocator import keep_freed_memory
from compress.checkpoint import Student, load_student
from compress.data.benchmarks import open_benchmark
from compress.distributed import deaths_in_words, launch, leave
from compress.errors import BadInput, run_command
from compress.files import parse_json
from compress.methods import METHODS, Method, make_method
from compress.models import build
from compress.models.discriminator import Discriminator, DiscriminatorConfig, check_patch, load_discriminator
from compress.recipe import DiscriminatorSpec, ModelSpec, Recipe, read_recipe, recipe_parser
from compress.run import Run
from compress.state import load_state
from compress.teachers import Teacher, load_teacher
from compress.techniques import make_technique
from compress.training_data import prepare_patches


def train(recipe: Recipe) -> Student:
    """Runs a recipe to its end, or on from its last save, and returns the student that it wrote to `out`/student.pt.

    Raises:
        BadInput: anything in the recipe that cannot work, before the training starts.
        StoppedRun: the loss or its gradient became NaN or infinite, or another process of the run died.
        KeyboardInterrupt: after saving the state, when the process was asked to stop.
    """
    recipe.check()
    keep_freed_memory()
    with deaths_in_words(recipe.out):
        return _train(launch(recipe.precision), recipe)


def _train(fabric: Fabric, recipe: Recipe) -> Student:
    fabric.seed_everything(recipe.seed, verbose=False)
    silent = not fabric.is_global_zero
    start = load_start(recipe.model.start) if recipe.model.start else None
    network = start.network() if start else build(str(recipe.model.architecture), model_options(recipe.model))
    scale = network.config.scale
    technique = make_technique(recipe.technique.name, recipe.technique.options, start.sparsity if start else None)
    network = technique.prepare(network)
    optimizer = technique.optimizer(network, recipe.schedule)
    teacher = load_teacher(recipe.teacher, scale) if recipe.teacher else None
    method = start_method(recipe, scale, teacher)
    benchmarks = [open_benchmark(name, scale, recipe.validation.data) for name in recipe.validation.sets]
    # from the first process: other machines may not share its disk
    state = fabric.broadcast(load_state(recipe.out / "state.pt", recipe.fingerprint()) if not silent else None)
    labeller = teacher if METHODS[recipe.method.name].labels else None
    patches = prepare_patches(fabric, recipe, scale, labeller, silent)
    run = Run(fabric, recipe, network, optimizer, method, technique, patches, benchmarks, state)
    run.to_the_end()
    return run.finish(teacher, start)


def load_start(path: Path) -> Student:
    """The student to go on from. Raises BadInput for an int8 one."""
    student = load_student(path)
    if student.quantization:
        raise BadInput(f"expected a float student to train on, found an int8 one in {path}: give the float one.")
    return student


def model_options(spec: ModelSpec) -> dict[str, Any]:
    """Options of the network: those of `model.sizes`, and over them those of the recipe.

    Raises:
        BadInput: no such file, not what `compress.pruning.sizes` writes, or sizes of another architecture.
    """
    if spec.sizes is None:
        return spec.options
    try:
        found = parse_json(spec.sizes.read_text(encoding="utf-8"))
        architecture, options = found["architecture"], dict(found["options"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"expected sizes written by `python -m compress.pruning.sizes`, found something else in {spec.sizes} ({error}): "
            "run it first."
        ) from error
    if architecture != spec.architecture:
        raise BadInput(
            f"expected sizes of the recipe's {spec.architecture}, found sizes of {architecture} in {spec.sizes}: "
            "correct model.architecture or model.sizes."
        )
    return {**options, **spec.options}


def start_method(recipe: Recipe, scale: int, teacher: Teacher | None) -> Method:
    """The recipe's method with its teacher and discriminators."""
    spec, side = recipe.discriminator, scale * recipe.data.lr_patch
    method = make_method(
        recipe.method.name,
        recipe.method.options,
        teacher.network if teacher else None,
        start_discriminator(spec, side) if spec else None,
        load_discriminator(spec.teacher) if spec and spec.teacher else None,
    )
    method.check_patch(side)
    return method


def start_discriminator(spec: DiscriminatorSpec, side: int) -> Discriminator:
    """The discriminator for HR patches of that side: fresh, or with the weights of `discriminator.start`.

    Raises:
        BadInput: a side that it cannot take, or a file with other sizes than the recipe's.
    """
    config = DiscriminatorConfig(width=spec.width, dense=spec.dense, patch=side)
    check_patch(config, side)
    if spec.start is None:
        return Discriminator(config)
    discriminator = load_discriminator(spec.start)
    if discriminator.config != config:
        raise BadInput(
            f"expected a discriminator of {_sizes(config)}, found one of {_sizes(discriminator.config)} in {spec.start}: "
            "make the recipe's discriminator and data.lr_patch those that it was trained with."
        )
    return discriminator


def _sizes(config: DiscriminatorConfig) -> str:
    return ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(config).items())


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments:
        raise BadInput("expected a recipe, found no argument: try `python -m compress.train recipes/quick.yaml`.")
    if arguments[0] in ("-h", "--help"):
        recipe_parser().print_help()
        return
    variant, overrides = take_variant(arguments[1:])
    recipe = read_recipe(Path(arguments[0]), overrides, variant)
    student = train(recipe)
    leave()
    if int(os.environ.get("RANK", "0")) == 0:
        for row in student.metrics:
            print(f"{row['set']} x{row['scale']}: PSNR {row['psnr']:.2f} dB, SSIM {row['ssim']:.4f}")
        print(f"wrote {recipe.out / 'student.pt'}")


def take_variant(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Takes `--quick` or `--variant NAME` out of the arguments: (the variant, the rest)."""
    rest, variant = [], None
    words = iter(arguments)
    for word in words:
        if word == "--quick":
            variant = "quick"
        elif word == "--variant":
            variant = next(words, None)
            if variant is None:
                raise BadInput("expected a name after --variant, found nothing: name a variant of the recipe.")
        elif word.startswith("--variant="):
            variant = word.partition("=")[2]
        else:
            rest.append(word)
    return variant, rest


if __name__ == "__main__":
    run_command(main)
