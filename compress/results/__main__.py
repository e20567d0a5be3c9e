"""The results page: `python -m compress.results results --out docs/results.md`, made of the pipelines' own figures."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from compress.cli import command_line
from compress.errors import BadInput
from compress.files import write_text
from compress.results.agreement import JUDGES, agreement
from compress.results.files import SeedResults, find_results
from compress.results.tables import our_rows, protocols, published_rows, training
from compress.variants import parse_yaml, reason

PUBLISHED = Path("results/published.yaml")
HEAD = """# Results

Made by `python -m compress.results` from the JSON that the pipelines wrote; nothing here is typed by hand, and the sentences on
agreement are computed from the figures on both sides.

- Figures of a set: PSNR in dB / SSIM / LPIPS (lower is closer), as far as they were measured.
- MACs: multiply-accumulates for one output image of 1280x720. Parameters: of the network that is trained, branches merged.
- Weights: kB of the weights with all that they need to run but the graph; of pruned rows dense, sparse, and either through zlib
  (`python -m compress.pruning.storage` says how).
- Steps: of the optimizer; "1,000 (teacher) + 500" went on from the weights of that row for 500.
- Every row is one run with one random seed: differences of a few hundredths of a dB may be chance.
"""


def page(seeds: Sequence[SeedResults], published: Mapping[str, Any], beside: Path) -> str:
    """The page as Markdown, seeds in the order of `published`, then all others by name.

    Args:
        seeds: from `find_results`.
        published: the documents' own figures, by name of the seed.
        beside: the folder of the page, from which pictures are linked.
    """
    names = list(published)
    ordered = sorted(seeds, key=lambda seed: (names.index(seed.name) if seed.name in names else len(names), seed.name))
    sections = [section(seed, published.get(seed.name), beside) for seed in ordered]
    sections.append(["## Protocol", "", *protocols(ordered)])
    return "\n".join([HEAD, *("\n".join(lines) + "\n" for lines in sections)])


def section(seed: SeedResults, published: Mapping[str, Any] | None, beside: Path) -> list[str]:
    """What there is to say of one pipeline, line by line."""
    lines = [f"## {seed.title}", ""]
    if document := published["document"] if published else seed.seed_document:
        lines += [f"{document}.", ""]
    if seed.variant:
        lines += [f"This is the recipe's variant `{seed.variant}`, not its full form.", ""]
    lines += [*our_rows(seed), ""]
    if seed.strip:
        picture = Path(os.path.relpath(seed.folder / "strip.png", beside)).as_posix()
        lines += [f"![The same crop of the truth, of several rows and of bicubic]({picture})", ""]
    if published:
        lines += ["The document's own figures:", "", *published_rows(published), ""]
        lines += [f"- {note}" for note in published.get("notes", [])]
        lines += [""] if published.get("notes") else []
    if published and seed.name in JUDGES:
        said = agreement(seed, published)
        lines += [f"**{said.verdict}.** {' '.join(said.sentences)}", ""]
    trained = training(seed)
    return [*lines, "Training:", "", *trained] if trained else lines[:-1]


def read_published(path: Path) -> dict[str, Any]:
    """The documents' own figures. Raises BadInput for a file that is not there or not as expected."""
    if not path.is_file():
        raise BadInput(f"expected the documents' own figures in {path}, found no such file: name it with --published.")
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(
            f"expected a YAML file, found that {path} does not parse ({reason(error)}): correct it."
        ) from error
    entries = content.values() if isinstance(content, dict) else [None]
    for entry in entries:
        if not isinstance(entry, dict) or not {"document", "rows"} <= set(entry):
            raise BadInput(f"expected `document` and `rows` for every name in {path}, found others: correct the file.")
    return content


def main(results: Sequence[Path], *, out: Path = Path("docs/results.md"), published: Path = PUBLISHED) -> None:
    """Writes the results page: a table per pipeline, the seed documents' own figures, and whether they agree.

    Args:
        results: folders that `python -m compress.pipeline ... --publish` wrote, or folders of such.
        out: the page, Markdown.
        published: YAML file of the documents' own figures.
    """
    seeds = find_results(results)
    write_text(out, page(seeds, read_published(published), out.parent))
    print(f"wrote {out}: {', '.join(seed.name for seed in seeds)}")


if __name__ == "__main__":
    command_line(main)
