"""Recipes as YAML: variants are laid over the rest, and what YAML makes of a number is what a person meant."""

from pathlib import Path

import pytest

from compress.errors import BadInput
from compress.variants import differences, merge, parse_yaml, read_variant

RECIPE = """
out: runs/full
model: {architecture: srresnet, options: {blocks: 16, channels: 64}}
schedule: {steps: 100000, learning_rate: 1e-4}
validation: {sets: [Set5, Set14]}
teacher: {file: t.pt}
variants:
  quick:
    model: {options: {blocks: 2}}
    schedule: {steps: 20}
    validation: {sets: [skimage]}
  other:
    model: {architecture: anchor, options: {blocks: 3}}
    teacher: null
    out: runs/elsewhere
  same:
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_without_a_variant_the_recipe_is_read_as_it_stands_without_its_variants(recipe):
    found = read_variant(recipe)
    assert "variants" not in found
    assert found["schedule"] == {"steps": 100000, "learning_rate": 1e-4}
    assert found["out"] == "runs/full"


def test_a_variant_merges_mappings_and_replaces_everything_else(recipe):
    found = read_variant(recipe, "quick")
    assert found["model"] == {"architecture": "srresnet", "options": {"blocks": 2, "channels": 64}}
    assert found["schedule"] == {"steps": 20, "learning_rate": 1e-4}
    assert found["validation"]["sets"] == ["skimage"]


def test_another_architecture_brings_its_own_options_and_null_takes_something_away(recipe):
    found = read_variant(recipe, "other")
    assert found["model"] == {"architecture": "anchor", "options": {"blocks": 3}}
    assert found["teacher"] is None


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({"name": "fakd"}, None),
        ({"name": "fakd", "options": {"taps": 3}}, {"taps": 3}),
        ({"name": "distillation", "options": {"truth": 1.0}}, {"truth": 1.0, "teacher": 0.5}),
        ({"options": {"truth": 1.0}}, {"truth": 1.0, "teacher": 0.5}),
    ],
)
def test_options_belong_to_the_name_beside_them(change, options):
    base = {"name": "distillation", "options": {"truth": 0.5, "teacher": 0.5}}
    merged = merge({"method": base}, {"method": change})["method"]
    assert merged.get("options") == options
    assert base["options"] == {"truth": 0.5, "teacher": 0.5}, "the base must stay as it was"


def test_a_variant_runs_in_a_folder_of_its_own_unless_it_names_one(recipe):
    assert read_variant(recipe, "quick")["out"] == "runs/full_quick"
    assert read_variant(recipe, "same")["out"] == "runs/full_same"
    assert read_variant(recipe, "other")["out"] == "runs/elsewhere"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.5e+3", 1500.0),
        ("-.5", -0.5),
        ("3", 3),
        ("1_000", 1000),
        ("2:4", "2:4"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("null", None),
        ("1e", "1e"),
        (".inf", float("inf")),
    ],
)
def test_numbers_are_what_they_look_like(text, value):
    found = parse_yaml(text)
    assert found == value
    assert type(found) is type(value)


def test_differences_are_named_with_dots():
    before = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    assert differences(before, before) == []
    assert differences(before, {"a": {"b": 2, "c": [1, 3]}, "d": None}) == ["a.b", "a.c"]
    assert differences(before, {"a": {"b": 1, "c": [1, 2]}, "d": {"x": 0}, "e": 0}) == ["d", "e"]


@pytest.mark.parametrize(
    ("text", "variant", "says"),
    [
        (RECIPE, "slow", r"expected a variant of .* out of quick, other, same, found 'slow'"),
        ("a: 1", "quick", r"out of none \(it has none\), found 'quick'"),
        ("a: 1\nb: 2\na: 3", None, r"the key 'a' is there twice.*line 3"),
        ("a: {b: 1, b: 2}", None, "the key 'b' is there twice"),
        ("- a\n- b", None, r"expected names with values .* found \['a', 'b'\]"),
        ("", None, "expected names with values"),
        ("3: a", None, "found the key 3"),
        ("a: [1", None, "does not parse"),
        ("a: !!python/object:os.system {}", None, "does not parse"),
        ("a: 1\nvariants: [quick]", "quick", "the variants of"),
        ("a: 1\nvariants: {quick: 3}", "quick", "the variant 'quick' of"),
    ],
)
def test_what_cannot_be_a_recipe_is_refused_in_one_sentence(tmp_path, text, variant, says):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=says) as caught:
        read_variant(path, variant)
    assert "\n" not in str(caught.value)


def test_no_file_and_no_text_are_refused(tmp_path):
    with pytest.raises(BadInput, match="found nothing at"):
        read_variant(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(BadInput, match="does not parse"):
        read_variant(tmp_path / "binary.yaml")


def test_a_new_key_of_a_variant_follows_the_one_that_it_follows_there():
    base = {"teacher": 1, "student": 2, "end": 3}
    assert list(merge(base, {"teacher": 1, "start": 0, "other": 0, "end": 4})) == [
        "teacher", "start", "other", "student", "end",
    ]  # fmt: skip
    assert list(merge(base, {"first": 0})) == ["teacher", "student", "end", "first"]


def test_a_key_that_overrides_what_an_anchor_merges_in_is_no_duplicate():
    assert parse_yaml("a: &x {c: 1, d: 2}\nb: {<<: *x, c: 3}")["b"] == {"c": 3, "d": 2}
