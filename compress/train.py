"""The one training loop: `python -m compress.train recipes/NAME.yaml`, alone or under torchrun.

Every option of the recipe can be changed on the command line, as in `--schedule.steps 1000`. A run that was stopped or
killed goes on where it last saved when the same command is given again.
"""

import importlib.metadata
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compress.allocator import keep_freed_memory
from compress.checkpoint import Student, load_student, save_student
from compress.data.benchmarks import Benchmark, open_benchmark
from compress.data.bicubic import imresize
from compress.data.patches import Patches, StepSampler, patch_loader, to_batch
from compress.errors import BadInput, StoppedRun, run_command
from compress.evaluate import evaluate, torch_upscaler
from compress.logbook import Logbook, save_strip
from compress.methods import Method, make_method
from compress.models import build
from compress.progress import progress
from compress.recipe import Recipe, named_paths, read_recipe, recipe_parser
from compress.schedule import learning_rate
from compress.state import TrainingState, load_state, save_state
from compress.teachers import Teacher, load_teacher
from compress.training_data import prepare_patches

LOG_EVERY = 50


def train(recipe: Recipe) -> Student:
    """Runs a recipe to its end, or on from its last save, and returns the student that it wrote to `out`/student.pt.

    Raises:
        BadInput: anything in the recipe that cannot work, before the training starts.
        StoppedRun: the loss or its gradient became NaN or infinite.
        KeyboardInterrupt: after saving the state, when the process was asked to stop.
    """
    recipe.check()
    keep_freed_memory()
    fabric = make_fabric(recipe)
    fabric.seed_everything(recipe.seed, verbose=False)
    silent = not fabric.is_global_zero
    network = start_network(recipe)
    scale = network.config.scale
    teacher = load_teacher(recipe.teacher, scale) if recipe.teacher else None
    method = make_method(recipe.method.name, recipe.method.options, teacher.network if teacher else None)
    benchmarks = [open_benchmark(name, scale, recipe.validation.data) for name in recipe.validation.sets]
    state = load_state(recipe.out / "state.pt", recipe.fingerprint())
    patches = prepare_patches(fabric, recipe, scale, teacher, silent)
    run = Run(fabric, recipe, network, method, patches, benchmarks, state)
    run.to_the_end()
    return run.finish(teacher)


def make_fabric(recipe: Recipe) -> Fabric:
    """Lightning Fabric for this process: alone, or one of those that torchrun started."""
    local, world = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(os.environ.get("WORLD_SIZE", "1"))
    native = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
    low = recipe.precision == "bf16" or (recipe.precision == "auto" and native)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator="auto",
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision="bf16-mixed" if low else "32-true",
    )
    fabric.launch()
    return fabric


def start_network(recipe: Recipe) -> nn.Module:
    """The network to train: fresh, or with the weights of `model.start`."""
    spec = recipe.model
    if spec.start is None:
        assert spec.architecture is not None
        return build(spec.architecture, spec.options)
    student = load_student(spec.start)
    if student.quantization:
        raise BadInput(f"expected a float student to train on, found an int8 one in {spec.start}: give the float one.")
    return student.network()


class Run:
    """A training run in progress."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        network: nn.Module,
        method: Method,
        patches: Patches,
        benchmarks: list[Benchmark],
        state: TrainingState | None,
    ):
        self.fabric, self.recipe, self.patches, self.benchmarks = fabric, recipe, patches, benchmarks
        schedule = recipe.schedule
        network = network.to(fabric.device).train()
        optimizer = torch.optim.Adam(network.parameters(), lr=schedule.learning_rate, betas=schedule.betas)
        self.average = None
        if schedule.ema:
            self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(schedule.ema), use_buffers=True)
        self.step = 0
        self.sums: dict[str, float] = {}
        if state:
            _restore(network, optimizer, self.average, state, recipe.out)
            self.step, self.sums = state.step, state.sums
        self.network = network
        self.student, self.optimizer = fabric.setup(network, optimizer)
        self.method = method.to(fabric.device).train()
        self.log = Logbook(recipe.out / "log.csv", self.step)
        self.stop_asked = False

    def to_the_end(self) -> None:
        """Trains up to the last step; saves, logs and validates on the way."""
        recipe, total = self.recipe, self.recipe.schedule.steps
        if self.step >= total:
            return
        images = recipe.data.batch * self.fabric.world_size
        sampler = StepSampler(self.step, total, recipe.data.batch, self.fabric.global_rank, self.fabric.world_size)
        loader = patch_loader(self.patches, sampler, recipe.data.workers)
        restore = self._listen_for_stop()
        clock, clock_step = time.monotonic(), self.step
        try:
            with progress("train", total, done=self.step, silent=not self.fabric.is_global_zero) as update:
                for batch in loader:
                    losses = self._train_step(batch)
                    self.step += 1
                    for name, value in losses.items():
                        self.sums[name] = self.sums.get(name, 0.0) + value
                    self.sums["count"] = self.sums.get("count", 0.0) + 1
                    if self.step % LOG_EVERY == 0 or self.step == total:
                        speed = images * (self.step - clock_step) / (time.monotonic() - clock)
                        self._log_losses(speed)
                        update(self.step, f"loss {sum(losses.values()):.4f}, {speed:.0f} images/s,")
                        clock, clock_step = time.monotonic(), self.step
                    if self.step % recipe.validation.every == 0 or self.step == total:
                        self._validate()
                    if self.step % recipe.save_every == 0 or self.step == total or self.stop_asked:
                        self._save()
                    if self.stop_asked:
                        raise KeyboardInterrupt
        finally:
            restore()

    def finish(self, teacher: Teacher | None) -> Student:
        """Writes student.pt: the averaged weights, branches merged, with provenance and the last validation."""
        recipe, collection = self.recipe, self.patches.collection
        provenance = {
            "recipe": named_paths(recipe.fingerprint()),
            "teacher": {"description": teacher.description, "key": teacher.key} if teacher else None,
            "data": {
                "source": Path(recipe.data.folder).name,
                "images": len(collection.pairs),
                "skipped": len(collection.skipped),
                "manifest_sha256": collection.manifest_hash(),
            },
            "steps": self.step,
            "batch": recipe.data.batch * self.fabric.world_size,
            "precision": str(self.fabric.strategy.precision.precision),
            "versions": versions(),
        }
        rows = [evaluate(torch_upscaler(self.result()), b) for b in self.benchmarks] if self._leads() else []
        metrics = [{key: value for key, value in row.items() if key != "per_image"} for row in rows]
        student = Student.of(self.result(), provenance=provenance, metrics=metrics)
        path = recipe.out / "student.pt"
        if self._leads():
            save_student(student, path)
        self.fabric.barrier()
        return load_student(path)

    def result(self) -> nn.Module:
        """The network that is kept: the moving average where there is one, merged, in eval mode."""
        kept = self.average.module if self.average else self.network
        return kept.merged().eval()

    def _train_step(self, patches: dict[str, Tensor]) -> dict[str, float]:
        schedule = self.recipe.schedule
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(schedule, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        batch = to_batch({name: value.to(self.fabric.device, non_blocking=True) for name, value in patches.items()})
        losses = self.method(self.student, batch)
        total = torch.stack(list(losses.values())).sum()
        self._check_finite("loss", total)
        self.fabric.backward(total)
        norm = self.fabric.clip_gradients(
            self.student, self.optimizer, max_norm=schedule.clip_norm or math.inf, error_if_nonfinite=False
        )
        self._check_finite("gradient", norm)  # before it reaches the weights, which may be saved next
        self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.network)
        return {name: value.item() for name, value in losses.items()}

    def _check_finite(self, what: str, value: Tensor | None) -> None:
        if value is not None and not math.isfinite(value.item()):
            schedule = self.recipe.schedule
            raise StoppedRun(
                f"the {what} became {value.item()} at step {self.step + 1}: lower schedule.learning_rate (now "
                f"{schedule.learning_rate:g}), lower schedule.clip_norm, add schedule.warmup, or set precision to float32; "
                f"start anew with another --out, for what {self.recipe.out} holds was saved on the way there."
            )

    def _log_losses(self, images_per_second: float) -> None:
        count = self.sums.pop("count")
        means = {f"loss_{name}": value / count for name, value in self.sums.items()}
        rate = learning_rate(self.recipe.schedule, self.step - 1)
        values = {"learning_rate": rate, "loss": sum(means.values()), **means, "images_per_second": images_per_second}
        self.log.add(self.step, values)
        self.sums = {}

    def _validate(self) -> None:
        """PSNR on every validation set, and the strip of samples, of the network that would be kept now."""
        if self._leads():
            network = self.result()
            upscale = torch_upscaler(network)
            for benchmark in self.benchmarks:
                row = evaluate(upscale, benchmark)
                self.log.add(self.step, {f"psnr_{benchmark.name}": row["psnr"]})
            self._draw_strip(upscale)
            self.network.train()
        self.fabric.barrier()

    def _draw_strip(self, upscale: Callable[[np.ndarray], np.ndarray]) -> None:
        if not self.benchmarks:
            return
        _, lr, hr = next(iter(self.benchmarks[0]))
        pictures = {"truth": hr, "student": upscale(lr), "bicubic": imresize(lr, self.benchmarks[0].scale)}
        save_strip(self.recipe.out / "strip.png", pictures)

    def _save(self) -> None:
        if self._leads():
            average = self.average.state_dict() if self.average else None
            state = TrainingState(self.step, self.network.state_dict(), self.optimizer.state_dict(), average, self.sums)
            self.log.write()
            self.log.plot(self.recipe.out / "curve.png")
            save_state(self.recipe.out / "state.pt", state, self.recipe.fingerprint())
        self.fabric.barrier()

    def _leads(self) -> bool:
        return self.fabric.is_global_zero

    def _listen_for_stop(self) -> Callable[[], None]:
        """Lets SIGTERM and Ctrl-C end the run after the step in progress; returns what undoes this."""

        def ask(*_: Any) -> None:
            self.stop_asked = True

        try:
            before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not in the main thread: signals are not ours to handle
            return lambda: None

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        return restore


def _restore(
    network: nn.Module, optimizer: torch.optim.Optimizer, average: AveragedModel | None, state: TrainingState, out: Path
) -> None:
    try:
        network.load_state_dict(state.student)
        optimizer.load_state_dict(state.optimizer)
        if average:
            average.load_state_dict(state.ema or {})
    except (RuntimeError, ValueError, KeyError) as error:
        raise BadInput(
            f"expected the state of this network in {out}, found one that another version of pocketsr wrote: "
            "give another --out, or delete that folder."
        ) from error


def versions() -> dict[str, str]:
    """Versions of the programs that make a student."""
    return {name: importlib.metadata.version(name) for name in ("torch", "lightning-fabric", "numpy")}


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments:
        raise BadInput("expected a recipe, found no argument: try `python -m compress.train recipes/quick.yaml`.")
    if arguments[0] in ("-h", "--help"):
        recipe_parser().print_help()
        return
    recipe = read_recipe(Path(arguments[0]), arguments[1:])
    student = train(recipe)
    if int(os.environ.get("RANK", "0")) == 0:
        for row in student.metrics:
            print(f"{row['set']} x{row['scale']}: PSNR {row['psnr']:.2f} dB, SSIM {row['ssim']:.4f}")
        print(f"wrote {recipe.out / 'student.pt'}")


if __name__ == "__main__":
    run_command(main)
