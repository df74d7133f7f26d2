"""The guide: it is made from what is there, its links hold, its commands compose, its claims have records."""

import ast
import json
import re
import sys

import pytest
from conftest import choices
from guide_texts import GUIDE, PAGES, READMES, ROOT, assert_runs, commands, examples, put, trained
from test_readme import TINY

from metagen.cli import main as cli
from metagen.config.tree import conf_dir

sys.path.insert(0, str(GUIDE))
from tools import configuration, errors, figures, reference, results
from tools.generate import generate

TEXTS = [*READMES, *PAGES]
CASES = [(path, line) for path in PAGES for line in commands(path)]
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)(?: \"[^\"]*\")?\)")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every generated page, in a folder of its own."""
    out = tmp_path_factory.mktemp("generated")
    generate(out)
    return out


def named(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_figures_are_those_of_the_records(path):
    text = path.read_text()
    assert figures.refreshed(text) == text, "run make figures"
    assert [*figures.broken_claims(text), *figures.misquoted(text)] == []


def test_a_claim_that_does_not_hold_is_found():
    texts = (
        "a:accuracy > b:accuracy",
        "mnist_holdout-scratch:recognised < mnist_holdout-transfer:recognised",
    )
    assert "does not hold" in next(figures.broken_claims(f"<!-- holds: {texts[1]} -->"))
    with pytest.raises(figures.Missing, match="no record a"):
        list(figures.broken_claims(f"<!-- holds: {texts[0]} -->"))
    assert "cannot read" in next(figures.broken_claims("<!-- holds: better -->"))


def test_every_advice_has_a_figure_of_a_record_or_a_link_to_one():
    text = (GUIDE / "choosing.md").read_text().partition("## What no record")[0]
    advice = [part for part in text.split("\n\n") if part.startswith("**")]
    assert len(advice) > 6
    for part in advice:
        assert (
            figures.FIGURE.search(part)
            or re.search(r"\]\((generated/results|ideas)\.md#", part)
            or (
                "no likelihood but many" in part  # of how models are built, not of how good they are
            )
        ), part


def target_of(page, link, made):
    """The file that a link of a page names, wherever the generated pages are."""
    path = (page.parent / link).resolve() if link else page
    generated = GUIDE.resolve() / "generated"
    return made / path.relative_to(generated) if path.is_relative_to(generated) else path


def anchors(path):
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M), re.M)
    plain = (re.sub(r"[^\w\u4e00-\u9fff\- ]", "", head.strip().lower()) for head in heads)
    return {head.replace(" ", "-") for head in plain}


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_links_resolve(path, made):
    text = re.sub(r"^```(?!\{toctree).*?^```", "", path.read_text(), flags=re.S | re.M)
    entries = [
        line for block in re.findall(r"```\{toctree\}\n(.*?)```", text, re.S) for line in block.splitlines()
    ]
    links = LINK.findall(text) + [f"{e}.md" for e in entries if re.fullmatch(r"[a-z][\w/-]*", e)]
    for link in links:
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = target_of(path, file, made)
        assert target.exists(), f"{link} of {path.name}"
        assert not anchor or anchor in anchors(target), f"{link} of {path.name}"


def test_links_of_generated_pages_resolve(made):
    for page in made.glob("*.md"):
        for link in LINK.findall(page.read_text()):
            here = GUIDE / "generated" / page.name
            assert target_of(here, link.partition("#")[0], made).exists(), f"{link} of {page.name}"


def test_every_page_is_in_a_table_of_contents():
    listed = " ".join(re.findall(r"```\{toctree\}\n(.*?)```", (GUIDE / "index.md").read_text(), re.S)).split()
    assert {str(p.relative_to(GUIDE).with_suffix("")) for p in PAGES} - {"index"} <= set(listed)


@pytest.mark.parametrize(("path", "line"), CASES, ids=[f"{p.stem}: {c}" for p, c in CASES])
def test_command_of_the_guide(path, line, tmp_cwd, monkeypatch):
    assert_runs(line, put(examples(path), tmp_cwd, monkeypatch), trained(path))


@pytest.mark.parametrize(
    ("page", "overrides"),
    [
        ("learner", ["learner=sign_descent"]),
        ("generator", ["model=pixel_means", "learner=scratch"]),
        ("dataset", ["data=stripes", "data.split=split.json"]),
    ],
)
def test_example_of_a_how_to_page_runs(page, overrides, tmp_cwd, monkeypatch):
    names = [str(15 * i) for i in range(12)]
    split = {"train": names[:6], "val": names[6:9], "test": names[9:]}
    (tmp_cwd / "split.json").write_text(json.dumps(split))
    files = examples(GUIDE / "howto" / f"{page}.md")
    assert {name.rpartition(".")[2] for name in files} == {"py", "yaml"}
    found = put(files, tmp_cwd, monkeypatch)
    monkeypatch.setenv("METAGEN_CACHE", str(tmp_cwd / "cache"))
    assert cli.run(["train", *overrides, found, *TINY, "hydra.run.dir=out"]) == 0
    record = json.loads((tmp_cwd / "out" / "metrics.json").read_text())
    assert record["metrics"]["negative_elbo"]["n"] == 2


def test_the_tutorial_has_pictures_and_they_are_small():
    pictures = re.findall(r"!\[[^\]]+\]\((assets/[\w-]+\.png)\)", (GUIDE / "tutorial.md").read_text())
    assert len(pictures) >= 6
    assert [name for name in pictures if (GUIDE / name).stat().st_size > 150_000] == []


def test_formulas_keep_their_distance_without_a_font_for_them():
    assert 'html_css_files = ["static"], ["guide.css"]' in (GUIDE / "conf.py").read_text()
    style = (GUIDE / "static" / "guide.css").read_text()
    below, above = (re.search(rf"(math .*) {{ padding-{side}:", style)[1] for side in ("top", "bottom"))
    for name in ("msub", "msubsup", "munder", "munderover"):
        assert f"math {name} > :nth-child(2)" in below
    for name in ("msubsup", "munderover"):
        assert f"math {name} > :nth-child(3)" in above


def test_results_show_every_record(made):
    page = (made / "results.md").read_text()
    for name, record in results.load().items():
        assert f"[{name}](" in page
        for metric, found in record["metrics"].items():
            if found["mean"] is not None:
                assert figures.number(found["mean"], found["ci95"]) in page, f"{metric} of {name}"
    assert (made / "adaptation-mnist_holdout.png").stat().st_size > 10_000


def test_results_take_a_new_record_of_an_unknown_experiment(tmp_path):
    found = {"mean": 1.0, "ci95": 0.5, "n": 3}
    bare = {"metrics": {"beauty": found}, "overrides": ["experiment=new"], "adaptation": []}
    (tmp_path / "new-one.json").write_text(json.dumps(bare))
    (tmp_path / "speed.json").write_text('{"machine": "any"}')
    page = results.page(tmp_path, tmp_path)
    assert "## new" in page
    assert "1.00 ± 0.50" in page


def test_configuration_shows_every_choice_and_key(made):
    page = (made / "configuration.md").read_text()
    for path in conf_dir().rglob("*.yaml"):
        group = path.parent.relative_to(conf_dir())
        assert str(group) == "." or f"### {group}={path.stem}\n" in page
    row = "| `learner.test_steps` | `10` | a whole number from 0 to 100,000 or null |"
    assert row not in page.partition("## learner")[0]
    assert row in page
    row = next(line for line in page.splitlines() if line.startswith("| `task.ways` | `3`"))
    assert row == "| `task.ways` | `3` | a whole number of 1 or more | classes of an episode |"


def test_a_key_without_a_comment_is_described_by_the_constructor(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "config.yaml").write_text("seed: 0  # of all\n")
    (tmp_path / "model" / "small.yaml").write_text("_target_: metagen.models.vae.VAE\nlatent: 8\n")
    page = configuration.page(tmp_path)
    assert "| `model.latent` | `8` | a whole number from 1 to 65,536 | length of z. |" in page
    said = "maps of the coarsest resolution in a row of the table."
    assert f"| `model.maps` | (`12`) | a whole number from 1 to 65,536 | {said} |" in page
    assert "| `seed` | `0` | a whole number from 0 to below 2^32 | of all |" in page


def literals():
    """Every piece of text of every error that is raised in the source, read in another way than the page."""
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            call = node.exc if isinstance(node, ast.Raise) else None
            name = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
            if name in ("MetagenError", "UsageError"):
                for piece in ast.walk(call.args[0]):
                    if (
                        isinstance(piece, ast.Constant)
                        and isinstance(piece.value, str)
                        and " " in piece.value
                    ):
                        yield path.name, piece.value


def test_every_error_message_is_in_the_guide(made):
    page, found = (made / "errors.md").read_text(), list(literals())
    assert len(found) > 200
    # Separators of lists that are filled in are no messages of their own.
    missing = [(name, text) for name, text in found if text not in page and re.search("[a-z]{3}", text)]
    assert missing == []


def test_every_error_message_says_what_to_do():
    assert errors.unanswered() == []
    assert errors.stale() == []


def test_the_table_of_methods_names_what_is_there():
    """A choice that is new needs no row: the configuration's page has it by itself."""
    table = (GUIDE / "methods.md").read_text().partition("## ")[0]
    column = " ".join(line.split("|")[2] for line in table.splitlines() if line.startswith("|"))
    named = set(re.findall(r"`(\w+)`", column))
    assert len(named) > 25
    assert named <= {*choices("learner"), *choices("model")}


def test_reference_has_every_module():
    pages = "\n".join(reference.pages().values())
    for path in (ROOT / "src" / "metagen").rglob("*.py"):
        if not path.stem.startswith("__"):
            module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
            assert f".. automodule:: {module}\n" in pages
