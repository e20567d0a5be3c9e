"""A folder of photographs, upscaled into another one of the same shape. Needs no torch."""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from compress.errors import BadInput
from compress.files import check_writable, sha256
from runtime.upscale.bar import Bar
from runtime.upscale.crew import Crew, Failed, Finished, Job, Opening, Ready, Step
from runtime.upscale.enlarge import Enlarged, Settings
from runtime.upscale.journal import NAME, Journal, Seen, alone_in
from runtime.upscale.photograph import pixels_of
from runtime.upscale.tree import Tree, photographs_below, result_names, sweep, sweep_one

MADE = 2  # rises with every change of ours after which finished results would come out otherwise


@dataclass
class FolderReport:
    """What became of a folder.

    Attributes:
        out: the folder of the results.
        tree: what was found.
        skipped: results that were there before, finished.
        written: those of this run.
        failed: a sentence for each photograph, or folder, that could not be read or written.
        seconds: of the work on those of this run.
    """

    out: Path
    tree: Tree
    skipped: int = 0
    written: list[Enlarged] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def notes(self) -> Counter[str]:
        """What the results lack or how they came about, counted."""
        return Counter(note for one in self.written for note in one.notes)


def upscale_folder(
    folder: Path,
    out: Path | None,
    opening: Opening,
    settings: Settings,
    suffix_of: Callable[[Path], str],
    jobs: int = 1,
) -> FolderReport:
    """Upscales every photograph below a folder that is not done yet; may be killed and run again at any time.

    Args:
        folder: of photographs; it is only read.
        out: of results, made where it is missing; may lie inside `folder`, which then leaves it out. None: FOLDER_x4
            beside it, after the scale.
        opening: what runs.
        settings: what is the same for all.
        suffix_of: the suffix of the result of a photograph.
        jobs: processes at work at once.

    Raises:
        BadInput: a folder without photographs, an unusable model, an `out` that holds `folder`, or another run in `out`.
        OSError: `out` cannot be written, or the disk is full.
    """
    if out:
        _check_apart(folder, out)
    tree = photographs_below(folder, out)
    if not tree.photographs:
        raise BadInput(next(iter(tree.closed), f"expected photographs, found none below {folder}: check the path."))
    with Crew(opening, settings, jobs) as crew:
        ready = crew.open()
        if not out:
            out = folder.resolve().with_name(f"{folder.resolve().name}_{settings.target.label(ready.scale)}")
            _check_apart(folder, out)
        check_writable(out / NAME)
        report = FolderReport(out, tree)
        with alone_in(out):
            sweep(out)
            run = _Run(folder, report, result_names(tree.photographs, suffix_of), _made_by(opening, ready, settings))
            try:
                run.go(crew, settings.max_megapixels)
            except BaseException:  # Ctrl-C and a full disk, too: nothing half stays
                crew.end()
                sweep(out)
                raise
        return report


class _Run:
    """One pass over a folder."""

    def __init__(self, folder: Path, report: FolderReport, names: Mapping[Path, Path], made_by: str):
        self._folder, self._report, self._names, self._made_by = folder, report, names, made_by
        self._journal = Journal(report.out)
        self._inputs = {_identity(folder / photo) for photo in names} - {None}
        self._pixels: dict[Job, int] = {}  # of what is to be done
        self._photos: dict[Job, Path] = {}
        self._read: dict[Job, Seen | None] = {}

    def go(self, crew: Crew, max_megapixels: float) -> None:
        """Looks at every photograph, then does what is to be done."""
        with Bar("look", len(self._names)) as bar:
            for sentence in self._report.tree.closed:
                self._fail(sentence, bar)
            for done, photo in enumerate(self._names):
                bar.show(done)
                job = Job(self._folder / photo, self._report.out / self._names[photo])
                self._photos[job] = photo
                try:
                    self._look(job, max_megapixels)
                except BadInput as error:
                    self._fail(str(error), bar)
                except OSError as error:
                    self._fail(f"expected files that can be read, found {error.filename}: {error.strerror}.", bar)
        start = time.perf_counter()
        with Bar("upscale", sum(self._pixels.values())) as bar:
            self._work(crew, bar)
        self._report.seconds = time.perf_counter() - start

    def _look(self, job: Job, max_megapixels: float) -> None:
        """Puts a job that is to be done into `_pixels`. Raises BadInput or OSError where it cannot be."""
        if _identity(job.out) in self._inputs:
            raise BadInput(
                f"expected a result beside the photographs, found that {job.out} would overwrite one: choose another --out."
            )
        if self._journal.is_done(*self._entry(job), job.photo, self._made_by):
            self._report.skipped += 1
            return
        pixels = pixels_of(job.photo, max_megapixels=max_megapixels)
        if not self._journal.may_write(self._entry(job)[0]):
            raise BadInput(
                f"expected room for the result of {job.photo}, found {job.out}, which is not this command's or was changed "
                "since: move it, or choose another --out."
            )
        self._pixels[job] = pixels

    def _work(self, crew: Crew, bar: Bar) -> None:
        ended, count, moving = 0, 0, {}
        for event in crew.run(self._pixels, self._begin):
            if isinstance(event, Step):
                moving[event.job] = event.share * self._pixels[event.job]
            else:
                moving.pop(event.job, None)
                ended, count = ended + self._pixels[event.job], count + 1
                self._end(event, bar)
            bar.show(ended + sum(moving.values()), f"{count} of {len(self._pixels)} photographs")

    def _begin(self, job: Job) -> None:
        try:
            self._read[job] = Seen.of(job.photo)
        except OSError:  # the process that reads it will say why
            self._read[job] = None
        self._journal.begin(*self._entry(job), self._made_by)

    def _end(self, event: Finished | Failed, bar: Bar) -> None:
        read = self._read.pop(event.job)
        if isinstance(event, Failed):
            sweep_one(event.job.out)
            self._journal.give_up(self._entry(event.job)[0])
            self._fail(event.sentence, bar)
            return
        if read is not None:
            self._journal.finish(*self._entry(event.job), self._made_by, read)
        self._report.written.append(event.enlarged)

    def _fail(self, sentence: str, bar: Bar) -> None:
        self._report.failed.append(sentence)
        bar.say(f"error: {sentence}")

    def _entry(self, job: Job) -> tuple[str, str]:
        """The result and the photograph, as the journal names them."""
        photo = self._photos[job]
        return self._names[photo].as_posix(), photo.as_posix()


def _check_apart(folder: Path, out: Path) -> None:
    """Raises BadInput where results could land among the photographs."""
    if out.exists() and not out.is_dir():
        raise BadInput(f"expected a folder for the results of a folder, found a file at {out}: choose another --out.")
    inside, results = (Path(os.path.realpath(path)) for path in (folder, out))  # resolve() fails on links in a circle
    if (out.exists() and out.samefile(folder)) or results in (inside, *inside.parents):
        raise BadInput(
            f"expected a folder for the results apart from the photographs, found that {out} holds {folder}: choose another "
            "--out."
        )


def _made_by(opening: Opening, ready: Ready, settings: Settings) -> str:
    """What results depend on beside their photographs, as a hash."""
    kept = asdict(settings)
    del kept["max_megapixels"]
    plain = {"made": MADE, "model": _model_hash(opening.model), "engine": ready.engine, **kept}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _model_hash(model: Path) -> dict[str, str]:
    """The hashes of a model's files."""
    beside = [model, model.with_suffix(".bin")] if model.suffix == ".param" else [model]
    files = sorted(file for file in model.rglob("*") if file.is_file()) if model.is_dir() else beside
    return {file.name: sha256(file) for file in files}


def _identity(path: Path) -> tuple[int, int] | None:
    """The same for all names of one file; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
