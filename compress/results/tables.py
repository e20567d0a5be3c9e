"""Markdown tables of the results page: our rows, a document's own figures, and what the rows were trained on."""

from collections.abc import Mapping, Sequence
from typing import Any

from compress.results.files import SeedResults

METRICS = (("psnr", 2), ("ssim", 4), ("lpips", 4))
NOTHING = "-"
UNKNOWN = "unknown"
WORDS = {"dense": "dense", "sparse": "sparse", "compressed": "zlib", "sparse_compressed": "sparse + zlib"}
DENSE_FROM = 0.995  # share of parameters that are not zero, from which zeros are taken for chance


def our_rows(seed: SeedResults) -> list[str]:
    """One row per stage in the order of the stages, bicubic first."""
    sets = seed.every_set()
    columns = ["row", "network", "how", "parameters", "MACs, G", "weights, kB", "steps", *sets]
    rows = [["bicubic", *[NOTHING] * 6, *(_figures(seed, "bicubic", name) for name in sets)]]
    for name, result in seed.rows.items():
        nonzero = "" if result["nonzero"] > DENSE_FROM else f" ({result['nonzero']:.1%} not 0)"
        rows.append(
            [
                seed.label(name),
                network(result),
                how(result),
                f"{result['parameters']:,}{nonzero}",
                f"{result['macs'] / 1e9:.2f}",
                weights(result["storage"], bool(nonzero)),
                steps(result),
                *(_figures(seed, name, one) for one in sets),
            ]
        )
    return table(columns, rows if seed.bicubic else rows[1:])


def published_rows(published: Mapping[str, Any]) -> list[str]:
    """What a document reports, its columns as they come."""
    others = list(dict.fromkeys(key for row in published["rows"] for key in row.get("other", {})))
    sets = list(dict.fromkeys(name for row in published["rows"] for name in row.get("sets", {})))
    rows = [
        [
            row["name"],
            row["row"] or NOTHING,
            *(str(row.get("other", {}).get(key, NOTHING)) for key in others),
            *(_shown(row.get("sets", {}).get(name, {})) for name in sets),
        ]
        for row in published["rows"]
    ]
    return table(["published", "our row", *others, *sets], rows)


def network(result: Mapping[str, Any]) -> str:
    """Architecture, scale and the options that set its size."""
    config = result["config"]
    sizes = [
        f"{key.replace('_', ' ')} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in config.items()
        if key in ("blocks", "channels", "block_channels", "stage_channels", "dim", "depths") and value
    ]
    precision = [] if result["precision"] == "float32" else [result["precision"]]
    pattern = [f"{result['pattern']} zeros"] if result.get("pattern") else []
    return ", ".join([f"{result['architecture']} x{result['scale']}", *sizes, *precision, *pattern])


def how(result: Mapping[str, Any]) -> str:
    """Method, teacher, technique and start of a training stage; the command of any other."""
    options = result["options"]
    if result["kind"] != "train":
        shown = ", ".join(f"{key} {value}" for key, value in options.items() if key != "student")
        return f"{result['kind']}: {shown}"
    words = [options["method"]["name"]]
    if result["teacher"]:
        words.append(f"from {result['teacher']}")
    technique = options.get("technique") or {"name": "none"}
    if technique["name"] != "none":
        words.append(f"with {technique['name']}")
    return " ".join(words)


def steps(result: Mapping[str, Any]) -> str:
    """Own steps, and those of the weights that it went on from, which published weights do not tell."""
    own, total = f"{result['steps']:,}", result["steps_total"]
    if not result["start"]:
        return UNKNOWN if total is None else own
    before = UNKNOWN if total is None else f"{total - result['steps']:,}"
    return f"{before} ({result['start']}) + {own}"


def weights(storage: Mapping[str, Mapping[str, int]], zeros: bool) -> str:
    """kB of the weights in each precision, float32 alone without its name; where zeros may save bytes, in each form."""
    shown = []
    for precision, forms in storage.items():
        kept = {form: forms[form] for form in (WORDS if zeros else ["dense"])}
        sizes = [f"{'' if len(kept) == 1 else WORDS[form] + ' '}{size / 1000:,.0f}" for form, size in kept.items()]
        shown.append(", ".join(sizes) if list(storage) == ["float32"] else f"{precision} {', '.join(sizes)}")
    return "; ".join(shown)


def training(seed: SeedResults) -> list[str]:
    """On what, how long and in which way each row was trained; rows alike share a line."""
    lines: dict[str, list[str]] = {}
    for name, result in seed.rows.items():
        if result["kind"] == "train" and result["data"]:
            lines.setdefault(_training_line(result), []).append(seed.label(name))
    return [f"- {', '.join(names)}: {line}" for line, names in lines.items()]


def protocols(seeds: Sequence[SeedResults]) -> list[str]:
    """The protocols of all figures, each with the seeds that used it."""
    found: dict[str, dict[str, None]] = {}
    for seed in seeds:
        for row in (one for result in seed.rows.values() for one in result["metrics"]):
            made = (
                f"LR of {row['set']}: {'made by our imresize' if row['protocol']['lr'] == 'imresize' else 'its files'}"
            )
            rest = "; ".join(f"{key}: {value}" for key, value in row["protocol"].items() if value and key != "lr")
            for text in (rest, made):
                found.setdefault(text, {})[seed.name] = None
    shared = [f"- {text}" for text, names in found.items() if len(names) == len(seeds)]
    return shared + [f"- {text} ({', '.join(names)})" for text, names in found.items() if len(names) < len(seeds)]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _training_line(result: Mapping[str, Any]) -> str:
    data, settings = result["data"], result["options"]
    schedule, patch = settings["schedule"], settings["data"]["lr_patch"]
    steps = f"times {schedule['gamma']:g} every {schedule['every']:,} steps"
    optimizer = "OBProx-SG" if settings["technique"]["name"] == "sparsify" else "Adam"
    rate = f"{optimizer} {schedule['learning_rate']:g}, {steps if schedule['kind'] == 'step' else schedule['kind']}"
    specs = [settings["method"], *([settings["technique"]] if settings["technique"]["name"] != "none" else [])]
    return (
        f"{' and '.join(map(_spec, specs))}; {data['source']}, {data['images']} images (SHA-256 of the manifest "
        f"{data['manifest_sha256'][:12]}...), {result['batch']} patches of {patch}x{patch} LR pixels a step; {rate}, EMA "
        f"{schedule['ema']:g}, {result['training_precision']}, seed {settings['seed']}"
    )


def _spec(spec: Mapping[str, Any]) -> str:
    """A name with its options."""
    options = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in spec["options"].items())
    return f"{spec['name']} ({options})" if options else spec["name"]


def _figures(seed: SeedResults, row: str, name: str) -> str:
    return _shown({metric: seed.figure(row, name, metric) for metric, _ in METRICS})


def _shown(figures: Mapping[str, float | None]) -> str:
    """'30.12 / .8612 / .2345', without what is not there."""
    shown = [f"{figures[metric]:.{digits}f}" for metric, digits in METRICS if figures.get(metric) is not None]
    return " / ".join(one.removeprefix("0") for one in shown) or NOTHING
