"""Runs set against each other, from made-up records."""

import csv
import json
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from comparison_records import record, write
from PIL import Image
from scipy import stats

from metagen.cli.main import run
from metagen.comparison.compare import compare
from metagen.comparison.comparison import Options, comparison
from metagen.comparison.paired_differences import difference
from metagen.comparison.payoff import payoff
from metagen.errors import MetagenError

draw = np.random.default_rng(1)
EPISODES = 12


@pytest.fixture
def runs(tmp_path):
    return partial(write, tmp_path / "runs")


def values(mean, steps=(0, 5), episodes=EPISODES):
    return {
        step: {
            "recognised": list(draw.normal(mean + step, 2.0, episodes)),
            "negative_elbo": list(draw.normal(100 - mean - step, 2.0, episodes)),
        }
        for step in steps
    }


def sweep(*learners, seeds=(0, 1, 2), **more):
    return [record(name, seed, values(mean), **more) for name, mean in learners for seed in seeds]


def found(folder, **options):
    return comparison([folder], Options(**options))


def rows(result, title):
    return next(table.rows for table in result.tables if table.title == title)


def test_means_and_students_interval_over_seeds(runs):
    records = sweep(("scratch", 10), ("maml", 20))
    (scratch, maml) = rows(found(runs(*records)), "Scores")
    means = [np.mean(item["per_episode"]["recognised"]) for item in records[3:]]
    half = stats.t.ppf(0.975, 2) * np.std(means, ddof=1) / 3**0.5
    assert maml["learner"] == "maml"
    assert maml["seeds"] == 3
    assert maml["recognised"] == {
        "mean": pytest.approx(np.mean(means)), "ci95": pytest.approx(half), "n": 3, "over": "seeds",
    }  # fmt: skip
    assert scratch["learner"] == "scratch"


def test_one_seed_has_its_interval_over_episodes(runs):
    (one,) = records = [record("maml", 0, values(20))]
    result = found(runs(*records))
    (row,) = rows(result, "Scores")
    x = one["per_episode"]["recognised"]
    assert row["recognised"]["ci95"] == pytest.approx(stats.t.ppf(0.975, 11) * stats.sem(x))
    assert "over the test episodes" in result.tables[0].caption
    assert [table.title for table in result.tables] == ["Scores"], "nothing to pair a lone run with"


def test_paired_differences_over_episodes_and_over_seeds_are_scipys(runs):
    records = sweep(("scratch", 10), ("maml", 11))
    result = found(runs(*records), metrics=["recognised"])
    ((maml, scratch),) = result.pairs
    delta = difference(maml, scratch, result.measures[0])
    a, b = (np.array([r["per_episode"]["recognised"] for r in part]) for part in (records[3:], records[:3]))
    over_episodes = stats.ttest_rel(a.mean(0), b.mean(0))
    over_seeds = stats.ttest_rel(a.mean(1), b.mean(1))
    for one, oracle in ((delta.episodes, over_episodes), (delta.seeds, over_seeds)):
        assert one.p == pytest.approx(oracle.pvalue)
        low, high = oracle.confidence_interval(0.95)
        assert one.mean == pytest.approx((low + high) / 2)
        assert one.ci95 == pytest.approx((high - low) / 2)
    assert delta.folds is None


def test_the_verdict_follows_what_is_better(runs):
    base = values(10)
    level = {
        k: {m: [x + (-1) ** i for i, x in enumerate(v)] for m, v in at.items()} for k, at in base.items()
    }
    folder = runs(record("scratch", 0, base), record("level", 0, level), record("maml", 0, values(40)))
    result = rows(found(folder), "Paired differences")
    verdicts = {(row["group"], row["metric"]): row["verdict"] for row in result}
    assert verdicts["maml", "recognised"] == verdicts["maml", "negative_elbo"] == "better"
    assert verdicts["level", "recognised"] == verdicts["level", "negative_elbo"] == "level"
    worse = found(runs(), against=["maml"], metrics=["negative_elbo"])
    assert {row["verdict"] for row in rows(worse, "Paired differences")} == {"worse"}


def test_scratch_and_transfer_are_the_baselines_else_the_best(runs):
    folder = runs(*sweep(("maml", 30), ("transfer", 20), ("scratch", 10)))
    assert [b.name for _, b in found(folder).pairs] == ["scratch", "scratch", "transfer"], "each pair once"
    assert {b.name for _, b in found(folder, against=["best"]).pairs} == {"maml"}
    with pytest.raises(MetagenError, match="did you mean 'transfer'"):
        found(folder, against=["transfr"])


def test_the_best_of_several_scratches_is_the_baseline(runs):
    folder = runs(
        *(r for lr, mean in (("1", 10), ("2", 30), ("3", 20)) for r in sweep(
            ("scratch", mean), seeds=(0, 1), overrides=[f"optimizer.lr={lr}"])),
        *sweep(("maml", 25), seeds=(0, 1)),
    )  # fmt: skip
    assert {b.name for _, b in found(folder).pairs} == {"scratch, optimizer.lr=2"}


def test_what_cannot_be_compared_is_left_out_and_says_why(runs):
    odd = record("maml", 3, values(1), sha="b", task={"shots": 1})
    folder = runs(
        *sweep(("scratch", 10), ("maml", 20)),
        odd,
        record("maml", 4, values(1), sha="c", tested=["3"]),
        record("maml", 5, values(1), sha="d", bank="e"),
        record("maml", 6, values(1), sha="f"),
        record("maml", 2, values(1)),
        None,
        '{"metrics": ',
        '{"metrics": {}}',
        record("maml", 7, values(1), sha="g", task={"a_key_of_today": False}),
    )
    (folder / "11" / "checkpoints").mkdir()
    (folder / "11" / "checkpoints" / "last.ckpt").touch()
    text = compare([folder])
    lines = {
        line.split(":")[1].split("/")[-1]: line for line in text.splitlines() if line.startswith("left out")
    }
    for number, words in {
        "6": "another task (task.shots=1, the others 5)",
        "7": "another split (tested on 3, the others on 7 8",
        "8": "other data (bank e, the others on bank b)",
        "9": "other test episodes (sha256 f, the others a)",
        "11": "unfinished (no metrics.json; checkpoints/last.ckpt",
        "12": "cannot be read",
        "13": "it has no 'episodes'",
        "14": "other test episodes (sha256 g, the others a)",
    }.items():
        assert words in lines[number], lines
    assert any("the same run as" in line for line in lines.values())


def test_names_have_no_more_keys_than_tell_rows_apart(runs):
    tuned = [record(n, 0, values(1), overrides=[f"optimizer.lr={lr}"]) for n, lr in (("a", 1), ("b", 2))]
    result = found(runs(*tuned))
    assert [group.name for group in result.groups] == ["a", "b"]
    assert [row["optimizer.lr"] for row in rows(result, "Scores")] == ["1", "2"]
    result = found(runs(record("a", 0, values(1), overrides=["optimizer.lr=3"])))
    assert [group.name for group in result.groups] == [
        "a, optimizer.lr=1", "b, optimizer.lr=2", "a, optimizer.lr=3",
    ]  # fmt: skip


def test_an_older_record_does_not_know_its_images_checksum(runs):
    old = record("scratch", 0, values(1)) | {"data": {}}
    assert found(runs(old, record("maml", 0, values(1)))).left == []


def test_runs_on_different_episodes_are_not_paired(runs, capsys):
    folder = runs(record("maml", 0, values(1)), record("scratch", 0, values(1), sha="b"))
    assert run(["compare", str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "different episodes" in line
    assert "--within" in line


def test_by_averages_over_nothing_but_seeds(runs, capsys):
    a, b = (record("maml", 0, values(1), overrides=[f"optimizer.lr={lr}"]) for lr in "12")
    folder = runs(a, b)
    assert [row["optimizer.lr"] for row in rows(found(folder), "Scores")] == ["1", "2"]
    assert run(["compare", str(folder), "--by", "learner"]) == 1
    assert "differ in optimizer.lr: add that to --by" in capsys.readouterr().err
    assert len(rows(found(folder, by=["learner", "optimizer.lr"]), "Scores")) == 2
    with pytest.raises(MetagenError, match="did you mean 'learner'"):
        found(folder, by=["lerner"])


def folds(mean, shift):
    return [
        record(name, seed, values(own + x), fold, [fold], [f"data.split=leave_out_{fold}"])
        for name, own in (("scratch", 10), ("maml", mean))
        for fold, x in (("8", 0), ("9", shift))
        for seed in (0, 1)
    ]  # fmt: skip


def test_folds_are_paired_within_and_pooled_over(runs):
    records = folds(11, 50)
    result = found(runs(*records), within=["data.split"], metrics=["recognised"])
    ((maml, scratch),) = result.pairs
    delta = difference(maml, scratch, result.measures[0])
    x = np.array([r["per_episode"]["recognised"] for r in records]).reshape(2, 2, 2, EPISODES)
    inside = (x[1] - x[0]).mean(1)  # (folds, episodes)
    assert delta.episodes.mean == pytest.approx(inside.mean())
    assert delta.episodes.ci95 == pytest.approx(
        stats.ttest_ind(inside[0], -inside[1], equal_var=False).confidence_interval().high / 2 - inside.mean()
    )
    assert delta.folds.p == pytest.approx(stats.ttest_1samp(inside.mean(1), 0).pvalue)
    assert delta.seeds.p == pytest.approx(stats.ttest_1samp((x[1] - x[0]).mean((0, 2)), 0).pvalue)
    assert [row["folds"] for row in rows(result, "Scores")] == [2, 2]


def test_a_missing_fold_is_named_and_the_others_paired(runs):
    result = found(runs(*folds(11, 50)[:-2]), within=["data.split"], metrics=["recognised"])
    assert any("maml has no run in leave_out_9" in note for note in result.notes)
    (row,) = rows(result, "Paired differences")
    assert row["difference ± episodes"]["n"] == EPISODES


def test_a_budget_takes_the_last_measurement_that_is_not_above_it(runs):
    records = [record("scratch", 0, values(10, (0, 2, 5))), record("amortized", 0, values(30, (0,)))]
    folder = runs(*records)
    at = {row["learner"]: row["recognised"]["mean"] for row in rows(found(folder, budget=4), "Scores")}
    assert at["scratch"] == pytest.approx(np.mean(records[0]["per_episode_by_step"]["2"]["recognised"]))
    assert at["amortized"] == pytest.approx(np.mean(records[1]["per_episode"]["recognised"]))


def test_better_in_everything_at_every_budget(runs):
    folder = runs(
        *(record("scratch", s, values(10, (0, 2, 5))) for s in (0, 1, 2)),
        *(record("chain", s, values(50, (0, 2, 5))) for s in (0, 1, 2)),
        *(record("late", s, values(10, (0,)) | {2: values(40)[5], 5: values(40)[5]}) for s in (0, 1, 2)),
    )
    result = found(folder, budget=5, budgets=True, against=["scratch"])
    joint = {row["group"]: row for row in rows(result, "All metrics at every budget at once")}
    assert joint["chain"]["better in all (episodes)"] == "yes"
    assert joint["chain"]["over seeds"] == "6 of 6"
    assert joint["late"]["better in all (episodes)"] == "no"
    lines = rows(result, "Paired differences at every budget")
    assert list(lines[0])[3:6] == ["0 steps", "2 steps", "5 steps"]


def test_a_record_without_budgets_is_named(runs):
    old = record("maml", 0, values(1, (0, 5)))
    del old["per_episode_by_step"]
    result = found(runs(old, record("scratch", 0, values(1, (0, 5)))), budget=2)
    assert any("maml has no values of its episodes before its last step" in note for note in result.notes)
    assert rows(result, "Scores")[0]["recognised"] is None


def curve(*means):
    return {step: {"recognised": [mean] * EPISODES} for step, mean in means}


def test_metrics_of_the_last_step_only_are_named_where_fewer_steps_are_asked_for(runs):
    early = {step: {"recognised": [1.0, 2.0]} for step in (0, 5)}
    path = early | {10: {"recognised": [3.0, 4.0], "coverage": [0.5, 0.75]}}
    folder = runs(record("chain", 0, path), record("scratch", 0, path))
    say = "chain has coverage after its last step only: metagen evaluate RUN curves=all"
    for options in ({"budget": 5}, {"budget": 7}, {"budgets": True}, {"budget": 5, "budgets": True}):
        assert any(note.startswith(say) for note in found(folder, **options).notes), options
    for options in ({}, {"budget": 10}, {"budget": 20}, {"budget": 5, "metrics": ["recognised"]}):
        assert not any("last step only" in note for note in found(folder, **options).notes), options


def test_pay_off_is_training_over_what_a_task_saves(runs):
    folder = runs(
        record("scratch", 0, curve((0, 1.0), (10, 50.0), (20, 90.0), (50, 80.0))),
        record("maml", 0, curve((0, 40.0), (1, 70.0), (5, 95.0))),
        record("never", 0, curve((0, 10.0), (5, 20.0))),
    )
    result = found(folder)
    by_name = {group.name: group for group in result.groups}
    row = payoff(by_name["maml"], by_name["scratch"], result.measures[0])
    assert (row["value"], row["its steps"], row["its seconds"]) == (90.0, 20, 10.0)
    assert (row["steps"], row["seconds"], row["FLOPs"]) == (5, 2.5, "5.00e+03")
    assert row["pays off after (tasks)"] == 14, "ceil(100 s / (10 s - 2.5 s))"
    assert payoff(by_name["never"], by_name["scratch"], result.measures[0])["steps"] == "never"


def test_likelihoods_are_metrics_of_their_own(runs):
    def likelihood(nll):
        row = {"images": 5, "per_episode": list(draw.normal(nll, 1, EPISODES))}
        return {"kind": "exact", "contexts": [row], "with_replacement_leaky": []}

    records = [
        record(n, 0, values(1), likelihood=likelihood(nll))
        for n, nll in (("scratch", 80), ("in_context", 60))
    ]
    (row,) = rows(found(runs(*records), metrics=["nll_t5"]), "Paired differences")
    assert row["verdict"] == "better"
    assert row["difference ± episodes"]["mean"] < -15


def test_everything_is_written_and_nothing_is_loaded_from_elsewhere(runs, tmp_path):
    folder = runs(*sweep(("scratch", 10), ("<b>&maml", 20), seeds=(0, 1)), None)
    Image.new("RGB", (40, 20), "red").save(folder / "0" / "samples.png")
    out = tmp_path / "new" / "comparison"
    assert run(["compare", str(folder), "--out", str(out)]) == 0
    names = {
        "comparison.csv",
        "comparison.md",
        "comparison.html",
        "differences.csv",
        "runs.csv",
        "adaptation.png",
    }
    assert names <= {path.name for path in out.iterdir()}
    html = (out / "comparison.html").read_text()
    assert "<b>&maml" not in html
    assert "&lt;b&gt;&amp;maml" in html
    assert len(re.findall(r'src="data:image/png;base64,', html)) == 3, "two pictures and a run's samples"
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    assert "unfinished" in html
    boxes = re.findall(r"<(table|img)", html)
    assert len(re.findall(r'class="wide" tabindex="0">\s*<(?:table|img)', html)) == len(boxes) > 4, (
        "what is wider than a phone is moved in a box of its own, by keyboard too"
    )
    assert "@media (max-width: 640px)" in html
    table = list(csv.DictReader((out / "comparison.csv").open()))
    assert [row["learner"] for row in table] == ["scratch", "<b>&maml"]
    assert float(table[1]["recognised"]) > float(table[0]["recognised"]) + 5
    assert {row["seed"] for row in csv.DictReader((out / "runs.csv").open())} == {"0", "1"}


def test_comparing_is_light(runs):
    folder = runs(*sweep(("scratch", 10), ("maml", 20)))
    code = f"from metagen.cli.main import run; import sys; assert run(['compare', {str(folder)!r}]) == 0; "
    code += (
        "sys.exit(any(name in sys.modules for name in ('torch', 'lightning', 'matplotlib', 'scipy.stats')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_markdown_holds_what_the_terminal_shows(runs, tmp_path, capsys):
    folder = runs(*sweep(("scratch", 10), ("maml", 20)), json.dumps([]))
    assert run(["compare", str(folder), "--markdown", str(tmp_path / "a.md")]) == 0
    text, shown = (tmp_path / "a.md").read_text(), capsys.readouterr().out
    assert "| maml | 3 |" in text
    assert "- left out: " in text
    assert "left out: " in shown
    assert "Holm" in text


def test_nothing_of_the_users_is_written_over(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = runs(*sweep(("scratch", 10), ("maml", 20)))
    mine = {"README.md": "mine", "plot.png": "mine", "report/comparison.csv": "old", "report/notes": "mine"}
    for name, text in mine.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for words in (
        ["--markdown", "README.md"], ["--out", "report"], ["--out", "README.md"],
        ["--out", "fresh", "--markdown", "README.md"], ["--x", "seed", "--plot", "plot.png"],
        ["--x", "seed", "--markdown", "README.md", "--plot", "new.png"],
        ["--x", "seed", "--plot", "new.png", "--markdown", "new.png"],
        ["--out", "fresh", "--markdown", "fresh/comparison.md"],
        ["--out", str(next(folder.glob("*"))), "--force"], ["--markdown", ".", "--force"],
    ):  # fmt: skip
        assert run(["compare", str(folder), *words]) == 1, words
        assert "name a" in capsys.readouterr().err, words
        assert {name: (tmp_path / name).read_text() for name in mine} == mine, words
        assert not any((tmp_path / name).exists() for name in ("fresh", "new.png")), words
    assert run(["compare", str(folder), "--out", "report", "--markdown", "README.md", "--force"]) == 0
    assert (tmp_path / "report" / "notes").read_text() == "mine"
    assert (tmp_path / "report" / "comparison.csv").read_text().startswith("learner,")
    assert "| maml | 3 |" in (tmp_path / "README.md").read_text()
    assert "page    report/comparison.html" in capsys.readouterr().out


def test_a_report_is_whole_or_not_there(runs, tmp_path, monkeypatch):
    folder = runs(*sweep(("scratch", 10), ("maml", 20)))

    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("metagen.comparison.page.page", stopped)
    assert run(["compare", str(folder), "--out", str(tmp_path / "report")]) == 130
    assert not [path for path in tmp_path.iterdir() if "report" in path.name]
