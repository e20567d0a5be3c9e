"""What can be known to be wrong with a stage before an earlier one has been trained for hours."""

import contextlib
import dataclasses
from collections.abc import Iterator

from compress.data.benchmarks import open_benchmark
from compress.data.images import find_images
from compress.data.sources import DEFAULT_SOURCE
from compress.errors import BadInput, StoppedRun
from compress.models import build
from compress.pipeline.recipe import Pipeline
from compress.pipeline.stages import TRAIN, Stage, expected_model, expected_scale
from compress.recipe import Recipe
from compress.teachers import Teacher, load_teacher
from compress.train import start_method


def check_inputs(pipeline: Pipeline, stage: Stage, available: set[str]) -> None:
    """Refuses a stage whose files, images, teacher or losses are not there.

    Args:
        available: stages that have finished or are about to run.

    Raises:
        BadInput: with the stage's name.
    """
    made = {reference.option: reference.stage for reference in stage.references}
    for option, path in pipeline.inputs(stage).items():
        if option in made and made[option] not in available:
            raise BadInput(
                f"expected {path}, which stage {stage.name!r} reads, found nothing: run stage {made[option]!r} first "
                f"(--stage {made[option]} {stage.name}, or no --stage at all)."
            )
        if option not in made and not path.is_file():
            raise BadInput(
                f"expected the file {path} for {option} of stage {stage.name!r}, found none: check the path."
            )
    if stage.kind == TRAIN:
        with naming(stage):
            _check_training(pipeline, stage, stage.recipe(pipeline.out, pipeline.products), made)


@contextlib.contextmanager
def naming(stage: Stage) -> Iterator[None]:
    """Puts the stage's name before what went wrong in it."""
    try:
        yield
    except (BadInput, StoppedRun) as error:
        raise type(error)(f"stage {stage.name!r}: {error}") from error


def _check_training(pipeline: Pipeline, stage: Stage, recipe: Recipe, made: dict[str, str]) -> None:
    if recipe.data.folder != DEFAULT_SOURCE:
        find_images(recipe.data.folder)
    scale = expected_scale(stage, pipeline.stages)
    if scale is None:
        return
    for name in recipe.validation.sets:
        open_benchmark(name, scale, recipe.validation.data)
    teacher = None
    if recipe.teacher and "teacher.file" not in made:
        teacher = load_teacher(recipe.teacher, scale)
    elif recipe.teacher:
        kinds = (expected_model(one, pipeline.stages) for one in (pipeline.stages[made["teacher.file"]], stage))
        stand_in = next(model for model in kinds if model)  # the stage's own is known, for its scale is
        teacher = Teacher(build(*stand_in).eval(), "", "one of its kind")
    discriminator = recipe.discriminator
    if discriminator and "discriminator.teacher" in made:
        return  # nothing can stand in for it
    if discriminator and "discriminator.start" in made:
        discriminator = dataclasses.replace(discriminator, start=None)
    # builds the losses, with the weights that they need, and holds the patches against them
    start_method(dataclasses.replace(recipe, discriminator=discriminator), scale, teacher)
