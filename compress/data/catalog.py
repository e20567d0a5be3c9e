"""What this project knows about public data sets: kind, size, licence, where they come from, where they lie here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compress.data.benchmarks import BUILT_IN, data_root, find_benchmarks
from compress.data.sources import TEST, TRAIN, skimage_photographs
from compress.errors import BadInput

TRAIN_ROOT = Path("data/train")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A zip of images with one folder inside, named as the zip. `size` in bytes; both as the host has served it."""

    url: str
    size: int
    sha256: str
    images: int

    @property
    def folder(self) -> str:
        return self.url.rsplit("/", 1)[-1].removesuffix(".zip")


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set.

    Attributes:
        kind: 'train' or 'eval'.
        images: how many.
        size: of the HR images, in words.
        scales: of the LR images that it is published with; HR-only sets have none.
        licence: as its authors state it.
        archives: what `download` fetches; empty where its files have no official host that serves them singly.
    """

    name: str
    kind: Literal["train", "eval", "train and eval"]
    images: int
    size: str
    scales: tuple[int, ...] = ()
    licence: str
    archives: tuple[Archive, ...] = ()


_DIV2K = "https://data.vision.ee.ethz.ch/cvl/DIV2K"
CATALOG = (
    DataSet(
        name="DIV2K",
        kind="train",
        images=900,
        size="2040 wide, 4.0 GB",
        licence="academic research only",
        archives=(
            Archive(
                url=f"{_DIV2K}/DIV2K_train_HR.zip",
                size=3530603713,
                sha256="9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
                images=800,
            ),
            Archive(
                url=f"{_DIV2K}/DIV2K_valid_HR.zip",
                size=448993893,
                sha256="20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
                images=100,
            ),
        ),
    ),
    DataSet(name="Set5", kind="eval", images=5, size="228 to 512", scales=(2, 3, 4), licence="none stated"),
    DataSet(name="Set14", kind="eval", images=14, size="250 to 768", scales=(2, 3, 4), licence="none stated"),
    DataSet(
        name="BSD100", kind="eval", images=100, size="480x320", scales=(2, 3, 4), licence="non-commercial research"
    ),
    DataSet(name="Urban100", kind="eval", images=100, size="about 1024 wide", scales=(2, 4), licence="none stated"),
    DataSet(
        name=BUILT_IN,
        kind="train and eval",
        images=len(TRAIN + TEST),
        size="384 to 1411",
        licence="stated per image by scikit-image",
    ),
)


def known_set(name: str) -> DataSet:
    """The set of that name, whatever its case. Raises BadInput for one that is not in the catalogue."""
    found = next((one for one in CATALOG if one.name.lower() == name.lower()), None)
    if found is None:
        raise BadInput(
            f"expected a data set out of {', '.join(one.name for one in CATALOG)}, found {name!r}: "
            "use one of these, or put a folder of images anywhere and give its path to the training."
        )
    return found


def locate(dataset: DataSet, *, train_root: Path = TRAIN_ROOT, eval_root: Path | None = None) -> Path | None:
    """The folder that holds a set on this machine, or None; a training set counts once all its archives are there."""
    if dataset.name == BUILT_IN:
        try:
            return skimage_photographs("test")[0].parent
        except BadInput:  # not installed
            return None
    if dataset.archives:
        folder = train_root / dataset.name
        return folder if all((folder / archive.folder).is_dir() for archive in dataset.archives) else None
    here = {name.lower(): name for name in find_benchmarks(eval_root)}
    name = here.get(dataset.name.lower())
    return data_root(eval_root) / name if name else None
