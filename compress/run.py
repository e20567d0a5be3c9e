"""A training run in progress: steps, moving average, log, validation, and the state that it resumes from."""

import dataclasses
import importlib.metadata
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compress.checkpoint import Student, load_student, save_student
from compress.data.benchmarks import Benchmark
from compress.data.bicubic import imresize
from compress.data.patches import Patches, StepSampler, patch_loader, to_batch
from compress.distributed import computes_in_bf16, leave
from compress.errors import BadInput, StoppedRun
from compress.evaluate import Upscaler, evaluate, torch_upscaler
from compress.logbook import Logbook, save_strip
from compress.methods import Method
from compress.models.discriminator import save_discriminator
from compress.progress import progress
from compress.recipe import Recipe, named_paths
from compress.schedule import learning_rate
from compress.state import TrainingState, check_room, save_state
from compress.teachers import Teacher
from compress.technique import Technique

LOG_EVERY = 50
Losses = dict[str, Tensor]


class Run:
    """Trains a network by a method, under a technique, up to the last step of the recipe.

    Args:
        network: made by the technique.
        optimizer: of the network.
        state: what an earlier run of the same recipe saved, or None.
    """

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        network: nn.Module,
        optimizer: Optimizer,
        method: Method,
        technique: Technique,
        patches: Patches,
        benchmarks: list[Benchmark],
        state: TrainingState | None,
    ):
        self.fabric, self.recipe, self.patches, self.benchmarks = fabric, recipe, patches, benchmarks
        schedule = recipe.schedule
        self.network = network.to(fabric.device).train()
        self.technique = technique.to(fabric.device)
        self.method = method.to(fabric.device).train()
        self.method.set_low_precision(computes_in_bf16(fabric))
        self.method.attach(self.network)
        self.average = None
        if schedule.ema:
            averaging = get_ema_multi_avg_fn(schedule.ema)
            self.average = AveragedModel(self.network, multi_avg_fn=averaging, use_buffers=True)
        self.discriminator, self.adversary = method.discriminator, None
        if self.discriminator:
            self.adversary = torch.optim.Adam(
                self.discriminator.parameters(), lr=schedule.learning_rate, betas=schedule.betas
            )
        trained = [self.network, self.discriminator] if self.discriminator else [self.network]
        check_room(recipe.out, sum(p.numel() for network in trained for p in network.parameters()))
        self.step = state.step if state else 0
        self.sums: dict[str, Tensor] = {}
        if state:
            self._restore(state, optimizer)
        self.student, self.optimizer = fabric.setup(self.network, optimizer)
        if self.discriminator:
            self.discriminator, self.adversary = fabric.setup(self.discriminator, self.adversary)
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
            with progress("train", total, done=self.step, silent=not self._leads()) as update:
                for patches in loader:
                    self._train_step(patches)
                    if self.step % LOG_EVERY == 0 or self.step == total:
                        speed = images * (self.step - clock_step) / (time.monotonic() - clock)
                        loss = self._log_losses(speed)
                        update(self.step, f"loss {loss:.4f}, {speed:.0f} images/s,")
                        clock, clock_step = time.monotonic(), self.step
                    if self.step % recipe.validation.every == 0 or self.step == total:
                        self._validate()
                    stop = self._stop_agreed()
                    if self.step % recipe.save_every == 0 or self.step == total or stop:
                        self._save()
                    if stop:
                        leave()
                        raise KeyboardInterrupt
        finally:
            restore()

    def finish(self, teacher: Teacher | None, start: Student | None) -> Student:
        """Writes student.pt: the kept weights, with provenance and the last validation; and discriminator.pt.

        Args:
            teacher, start: what the run learned from and where it began, for the provenance.
        """
        recipe, collection = self.recipe, self.patches.collection
        path = recipe.out / "student.pt"
        if self._leads():
            student = self.result()
            provenance = {
                **student.provenance,
                "recipe": named_paths(recipe.fingerprint()),
                "start": {"sha256": start.file_hash, "provenance": start.provenance} if start else None,
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
            rows = [evaluate(self._upscaler(student), benchmark) for benchmark in self.benchmarks]
            metrics = [{key: value for key, value in row.items() if key != "per_image"} for row in rows]
            if self.method.discriminator:
                save_discriminator(self.method.discriminator, recipe.out / "discriminator.pt")
            save_student(dataclasses.replace(student, provenance=provenance, metrics=metrics), path)
        # a machine that does not share the first one's disk has no such file
        return self.fabric.broadcast(load_student(path) if self._leads() else None)  # type: ignore[return-value]

    def result(self) -> Student:
        """The student made of what is kept: the moving average where there is one."""
        kept = self.average.module if self.average else self.network
        return self.technique.student(kept)

    def _upscaler(self, student: Student) -> Upscaler:
        return torch_upscaler(student.reference().to(self.fabric.device))

    def _train_step(self, patches: dict[str, Tensor]) -> None:
        batch = to_batch({name: value.to(self.fabric.device, non_blocking=True) for name, value in patches.items()})
        if self.discriminator:
            self.discriminator.requires_grad_(False)
        losses = {**self.method(self.student, batch), **self.technique.penalty(self.network, self.step + 1)}
        self._minimise(losses, self.student, self.optimizer)
        if self.discriminator and self.adversary:
            self.discriminator.requires_grad_(True)
            against = self.method.discriminator_losses(self.discriminator, batch)
            self._minimise(against, self.discriminator, self.adversary)
            losses |= {f"discriminator_{name}": value for name, value in against.items()}
        self.step += 1
        self.technique.after_step(self.network, self.step)
        if self.average:
            self.average.update_parameters(self.network)
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value.detach()
        self.sums["count"] = self.sums.get("count", torch.zeros(())) + 1

    def _minimise(self, losses: Losses, network: nn.Module, optimizer: Optimizer) -> None:
        """One optimizer step on the sum of the losses."""
        schedule = self.recipe.schedule
        rate = learning_rate(schedule, self.step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_factor", 1.0)
        optimizer.zero_grad(set_to_none=True)
        total = torch.stack(list(losses.values())).sum()
        self.fabric.backward(total)
        norm = self.fabric.clip_gradients(
            network, optimizer, max_norm=schedule.clip_norm or math.inf, error_if_nonfinite=False
        )
        assert norm is not None
        if not math.isfinite(norm.item()):  # before it reaches the weights, which may be saved next
            self._stop("gradient" if math.isfinite(total.item()) else "loss")
        optimizer.step()

    def _stop(self, what: str) -> None:
        schedule = self.recipe.schedule
        raise StoppedRun(
            f"the {what} became infinite or not a number at step {self.step + 1}: lower schedule.learning_rate (now "
            f"{schedule.learning_rate:g}), lower schedule.clip_norm, add schedule.warmup, or set precision to float32; "
            f"start anew with another --out, for what {self.recipe.out} holds was saved on the way there."
        )

    def _log_losses(self, images_per_second: float) -> float:
        """Adds a row of mean losses since the last one; returns the mean of the student's sum."""
        count = self.sums.pop("count").item()
        means = {name: value.item() / count for name, value in self.sums.items()}
        loss = sum(value for name, value in means.items() if not name.startswith("discriminator_"))
        self.log.add(
            self.step,
            {
                "learning_rate": learning_rate(self.recipe.schedule, self.step - 1),
                "loss": loss,
                **{f"loss_{name}": value for name, value in means.items()},
                **self.technique.figures(self.network),
                "images_per_second": images_per_second,
            },
        )
        self.sums = {}
        return loss

    def _validate(self) -> None:
        """PSNR on every validation set, and the strip of samples, of the student that would be kept now."""
        self._share_statistics()
        if self._leads() and self.benchmarks:
            upscale = self._upscaler(self.result())
            for benchmark in self.benchmarks:
                row = evaluate(upscale, benchmark)
                self.log.add(self.step, {f"psnr_{benchmark.name}": row["psnr"]})
            _, lr, hr = next(iter(self.benchmarks[0]))
            pictures = {"truth": hr, "student": upscale(lr), "bicubic": imresize(lr, self.benchmarks[0].scale)}
            save_strip(self.recipe.out / "strip.png", pictures)
            self.network.train()
        self.fabric.barrier()

    def _save(self) -> None:
        self._share_statistics()
        if self._leads():
            state = TrainingState(
                step=self.step,
                student=self.network.state_dict(),
                optimizer=self.optimizer.state_dict(),
                ema=self.average.state_dict() if self.average else None,
                method=self.method.state_dict(),
                technique=self.technique.state_dict(),
                discriminator_optimizer=self.adversary.state_dict() if self.adversary else None,
                sums={name: value.item() for name, value in self.sums.items()},
            )
            self.log.write()
            self.log.plot(self.recipe.out / "curve.png")
            save_state(self.recipe.out / "state.pt", state, self.recipe.fingerprint())
        self.fabric.barrier()

    def _restore(self, state: TrainingState, optimizer: Optimizer) -> None:
        self.sums = {name: torch.tensor(value) for name, value in state.sums.items()}
        try:
            self.network.load_state_dict(state.student)
            optimizer.load_state_dict(state.optimizer)
            self.method.load_state_dict(state.method)
            self.technique.load_state_dict(state.technique)
            if self.average:
                self.average.load_state_dict(state.ema or {})
            if self.adversary:
                self.adversary.load_state_dict(state.discriminator_optimizer or {})
        except (RuntimeError, ValueError, KeyError) as error:
            raise BadInput(
                f"expected the state of this network in {self.recipe.out}, found one that another version of pocketsr "
                "wrote: give another --out, or delete that folder."
            ) from error

    def _share_statistics(self) -> None:
        """Averages the statistics of batch norm, which every process gathered from its own patches.

        Between two calls they differ. Nothing depends on them in training mode, and as they are sums it does not matter
        how often they are averaged.
        """
        if self.fabric.world_size == 1:
            return
        networks = [network for network in (self.network, self.average, self.discriminator) if network]
        norms = [one for network in networks for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
        shared = [value for one in norms for value in (one.running_mean, one.running_var) if value is not None]
        if shared:
            means = self.fabric.all_reduce(torch.cat(shared), reduce_op="mean")
            assert isinstance(means, Tensor)
            for value, mean in zip(shared, means.split([len(value) for value in shared]), strict=True):
                value.copy_(mean)

    def _stop_agreed(self) -> bool:
        """Whether any process was asked to stop, so that all of them stop after the same step."""
        return self.fabric.strategy.reduce_boolean_decision(self.stop_asked, all=False)

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


def versions() -> dict[str, str]:
    """Versions of the programs that make a student."""
    return {name: importlib.metadata.version(name) for name in ("torch", "lightning-fabric", "numpy")}
