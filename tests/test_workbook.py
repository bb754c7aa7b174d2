"""Strict parameters, worker processes, and the run driver's bookkeeping."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from jmp_lib import pool, records, reproduce, workbook
from jmp_lib.__main__ import main
from jmp_lib.parameters import assigned_names, choose, collect, convert
from jmp_lib.files import locked, write_atomically, write_json
from jmp_lib.pool import Outcome
from jmp_lib.settings import Rates, load_profile

ROOT = Path(__file__).parents[1]


def test_unknown_parameter_names_the_nearest_one():
    with pytest.raises(ValueError, match="unknown parameter 'targts'.*'targets'"):
        collect({"profile": "smoke", "targets": "", "targts": "mu"}, ("profile", "targets"))


def test_missing_parameter_is_told():
    with pytest.raises(ValueError, match="'seed' is not set"):
        collect({"profile": "smoke"}, ("profile", "seed"))


def test_injected_and_edited_cells_are_told_from_other_variables():
    cells = ["", 'profile = "mini"\nseed = None', '# Parameters\nsede = 3', "run = start(globals(), names)", "x = 3",
             'profile = "smoke"\nsedd = 4', 'y = 5\nprofile = "mini"',
             'profile = "mini"\ndf = read()', 'profile = "mini"\nx == 3']
    assert assigned_names({"In": cells, "x": 3}) == ["profile", "seed", "sede", "sedd"]
    with pytest.raises(ValueError, match="'sede'.*'seed'"):
        collect({"In": cells, "profile": "mini", "seed": None}, ("profile", "seed"))


@pytest.mark.parametrize("value", ["5e-5", "0.1", "fast"])
def test_text_where_a_number_is_wanted(value):
    with pytest.raises(ValueError, match=r"'lr' must be a number.*got the text.*5\.0e-5"):
        convert("lr", value)


@pytest.mark.parametrize("name, value", [("seed", 1.5), ("workers", 0), ("workers", True), ("profile", 3),
                                         ("arms", [1, 2]), ("lr", [0.1])])
def test_values_of_the_wrong_kind(name, value):
    with pytest.raises(ValueError, match=f"parameter '{name}' must be"):
        convert(name, value)


def test_values_are_converted():
    assert convert("lr", 1) == 1.0 and convert("seed", 0) == 0 and convert("seed", 7.0) == 7
    assert convert("arms", " JMP-S, JMP-L ") == convert("arms", ["JMP-S", "JMP-L"]) == ["JMP-S", "JMP-L"]
    for text in ('["JMP-S", "JMP-L"]', "[JMP-S, JMP-L]", "['JMP-S', 'JMP-L']"):
        assert convert("arms", text) == ["JMP-S", "JMP-L"]
    assert convert("source", Path("a") / "b.xyz") == convert("labels_csv", Path("a/b.xyz")) == "a/b.xyz"
    assert convert("seed", None) is None and convert("targets", " ") is None


def test_choose_keeps_the_known_order_and_names_the_nearest():
    assert choose(["c", "A"], ["a", "b", "c"], "letter") == ["a", "c"]
    with pytest.raises(ValueError, match="unknown molecule 'ethanole'.*'ethanol'"):
        choose(["ethanole"], ["aspirin", "ethanol"], "molecule")


def start(tmp_path, family=None, **values):
    values = {"profile": "smoke", "results_dir": str(tmp_path), **values}
    return workbook.start(values, tuple(values), family=family)


def test_start_applies_overrides(tmp_path, capsys):
    run = start(tmp_path, "qm9", targets="zpve, mu", arms="JMP-S", seed=7, lr=0.25, max_steps=3)
    assert run.tasks == ("qm9_mu", "qm9_zpve") and run.arms == ("JMP-S",)
    assert run.profile.seed == 7 and run.profile.max_steps == 3
    assert run.profile.finetune_settings("qm9", "qm9_mu").lr == Rates(scratch=0.25, pretrained=0.25)
    assert run.profile.finetune_settings("rmd17", "rmd17_ethanol").lr.scratch.small != 0.25
    assert run.results_dir == tmp_path and "profile smoke" in capsys.readouterr().out


def test_start_refuses_wrong_names(tmp_path):
    for wrong, words in (({"profile": "smok"}, "smoke"), ({"arms": "JMP-XL"}, "JMP-"), ({"targets": "zpv"}, "zpve"),
                         ({"data": "publishd"}, "published"), ({"data": "published"}, "data_root")):
        with pytest.raises(ValueError, match=words):
            start(tmp_path, "qm9", **wrong)


def test_smoke_takes_the_first_tasks_and_ids_are_accepted(tmp_path):
    assert start(tmp_path, "md22").tasks == ("md22_ac-ala3-nhme",)
    assert start(tmp_path, "rmd17", molecules="rmd17_ethanol").tasks == ("rmd17_ethanol",)
    assert len(start(tmp_path).tasks) == 6


def test_published_rmd17_takes_two_molecules_and_keeps_its_results_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("jmp_lib.workbook.why_not", lambda *_, **__: None)
    run = start(tmp_path, "rmd17", data="published", data_root=str(tmp_path))
    assert run.tasks == ("rmd17_aspirin", "rmd17_ethanol") and run.profile.data == "published"
    assert workbook.results_folder(None, run.profile).name == "smoke-published"


def test_tasks_without_published_data_are_named_and_left_out(tmp_path, capsys):
    chain = np.arange(148)[:, None] * [1.0, 0, 0]
    frames = {"z": np.ones(148), "R": np.tile(chain, (610, 1, 1)),
              "F": np.zeros((610, 148, 3)), "E": np.zeros((610, 1))}
    np.savez_compressed(tmp_path / "md22_buckyball-catcher.npz", **frames)
    wanted = {"data": "published", "data_root": str(tmp_path), "molecules": "dha, buckyball-catcher"}
    assert start(tmp_path, "md22", **wanted).tasks == ("md22_buckyball-catcher",)
    said = capsys.readouterr().out
    assert "no published data for md22_dha: no MD22 file of DHA in" in said and "get md22_DHA.npz from" in said
    with pytest.raises(ValueError, match="no published data for md22_dha"):
        start(tmp_path, "md22", **(wanted | {"molecules": "dha"}))


def test_tables_do_not_say_where_the_data_are_on_this_machine(tmp_path):
    run = start(tmp_path, profile="published_small", data_root=str(tmp_path / "there"))
    table = run.write_table(pd.DataFrame({"why": [f"no file in {tmp_path}/there/qm9", None], "n": [1, 2]}), "a")
    assert (table["why"][0] == "no file in data/qm9"
            and (tmp_path / "tables" / "a.csv").read_text() == "why,n\nno file in data/qm9,1\n,2\n")


def test_failed_runs_are_told(tmp_path, capsys):
    outcomes = [Outcome("2", 4), Outcome("-1", error="ValueError: negative")]
    pool.report(tmp_path, outcomes, "test")
    assert "1 of 2 test runs failed:\n  -1: ValueError: negative" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="negative"):
        pool.report(tmp_path, outcomes[1:], "test")
    assert pool.failures_file(tmp_path).is_file()
    pool.report(tmp_path, [Outcome("-1", 0)], "test")  # it ended well in the end
    assert not pool.failures_file(tmp_path).exists()


def test_failed_runs_make_a_notebook_incomplete_whatever_it_prints(tmp_path, monkeypatch, capsys):
    outcomes = [Outcome("qm9_mu mean", 4), Outcome("qm9_mu mace", error="RuntimeError: no memory")]
    notebooks = reproduce.select(reproduce.notebook_paths(), "15")
    monkeypatch.setattr(reproduce, "notebook_paths", lambda: notebooks)
    monkeypatch.setattr(reproduce, "execute", lambda source, copy, values: pool.report(tmp_path, outcomes, "baseline"))
    assert reproduce.main("smoke", None, str(tmp_path)) == 1
    assert "15_how_sure: some runs failed" in capsys.readouterr().out
    monkeypatch.setattr(reproduce, "execute",
                        lambda source, copy, values: print("2 of 3 test runs failed: said the reader"))
    assert reproduce.main("smoke", None, str(tmp_path)) == 0


def test_a_notebook_that_was_killed_does_not_pass_as_done_and_only_one_reproduces(tmp_path, monkeypatch, capsys):
    notebooks = reproduce.select(reproduce.notebook_paths(), "11")
    monkeypatch.setattr(reproduce, "notebook_paths", lambda: notebooks)

    def killed(source, copy, values):
        with write_atomically(copy) as stream:
            stream.write("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(reproduce, "execute", killed)
    with pytest.raises(KeyboardInterrupt):
        reproduce.main("smoke", None, str(tmp_path))
    monkeypatch.setattr(reproduce, "execute", lambda source, copy, values: None)
    for words in ("done in", "done and unchanged"):
        assert reproduce.main("smoke", None, str(tmp_path)) == 0
        assert words in capsys.readouterr().out
    with (locked(tmp_path / "work" / "reproduce.lock"),
          pytest.raises(RuntimeError, match=f"runs in {tmp_path} already: wait")):
        reproduce.main("smoke", None, str(tmp_path))


def test_published_files_that_arrive_change_the_notebooks_that_read_them(tmp_path):
    (tmp_path / "data").mkdir()
    published, mini = (load_profile(name, data_root=str(tmp_path / "data")) for name in ("published_small", "mini"))
    first, ninth = (reproduce.select(reproduce.notebook_paths(), number)[0] for number in ("01", "10"))

    def states():
        return [reproduce.sources(n, "p", profile)
                for n, profile in ((first, published), (ninth, published), (first, mini))]

    before = states()
    (tmp_path / "data" / "qm9.sdf").write_text("new")
    assert [a != b for a, b in zip(before, states())] == [True, False, False]


def test_select_notebooks():
    found = reproduce.notebook_paths()
    assert [p.stem[:2] for p in reproduce.select(found, "3, 04,13_paper_tables")] == ["03", "04", "13"]
    with pytest.raises(ValueError, match="no notebook '99'"):
        reproduce.select(found, "99")


def test_clean_removes_times_progress_and_machine_paths(monkeypatch, tmp_path):
    root = str(ROOT)
    monkeypatch.setenv("JMP_DATA", str(tmp_path))
    monkeypatch.setenv("HOME", "/hömé")
    output = nbformat.v4.new_output("stream", name="stderr", text="a:  50%|##   | 1/2\r\nb: 100%|####| 2/2\n\x1b[A")
    words = nbformat.v4.new_output("stream", name="stdout", text=f"results in {root}/results/mini, {tmp_path}/qm9\n")
    shown = nbformat.v4.new_output("display_data",
                                   {"text/plain": "/hömé/x", "image/png": f"ab{root}/cd{tmp_path}//hömé/"})
    cell = nbformat.v4.new_code_cell(f"x = '{root}/results'", outputs=[output, words, shown],
                                     metadata={"papermill": {"duration": 3}, "execution": {},
                                               "tags": ["injected-parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={
        "papermill": {}, "language_info": {"name": "python", "version": "3.11.2"}})
    cleaned = reproduce.clean(notebook)
    assert cleaned.cells[0].outputs[0] == {**words, "text": "results in results/mini, data/qm9\n"}
    # no path
    assert cleaned.cells[0].outputs[1].data == {"text/plain": "~/x", "image/png": f"ab{root}/cd{tmp_path}//hömé/"}
    assert cleaned.cells[0].source == "x = 'results'" and cleaned.cells[0].metadata == {"tags": ["injected-parameters"]}
    assert cleaned.cells[0].id == "injected-parameters"  # drawn by papermill
    nbformat.validate(cleaned)
    assert "papermill" not in cleaned.metadata and "version" not in cleaned.metadata.language_info


def test_records_decide_whether_a_notebook_is_done(tmp_path):
    notebooks = {path.stem[:2]: path for path in reproduce.notebook_paths()}
    reads = {"pretrain/large": "03 11 12 13 15", "../live/records/pretrain/small": "03",
             "finetune/qm9_mu/JMP-S": "04 10 11 12 13 15", "finetune/md22_dha/JMP-S": "06 10 11 12 13 15",
             "baselines/qm9_mu--composition": "04 10 12 13 15", "baselines/qm9_mu--schnet": "13 15",
             "../own/example/pre-trained.seed42": "14", "../variants/seed-43/records/finetune/qm9_mu/JMP-S": "11 13 15"}
    for name, readers in reads.items():
        before = {number: reproduce.records_of(path, tmp_path) for number, path in notebooks.items()}
        path = (tmp_path / "records" / f"{name}.json").resolve()
        (tmp_path / "records").mkdir(exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        after = {number: reproduce.records_of(path, tmp_path) for number, path in notebooks.items()}
        assert [number for number in notebooks if after[number] != before[number]] == readers.split(), name


def test_a_notebook_whose_weights_or_predictions_are_gone_is_not_done(tmp_path):
    family, tables = (reproduce.select(reproduce.notebook_paths(), number)[0] for number in ("04", "13"))
    path, weights = tmp_path / "records" / "finetune" / "qm9_mu" / "JMP-S.json", tmp_path / "work" / "weights"
    for folder in (path.parent, weights.parent):
        folder.mkdir(parents=True)
    weights.write_text("1")
    write_json(path, {"schema": records.SCHEMA, "fingerprint": "f",
                      "files": {"weights": records.file_entry(weights, tmp_path)}})
    assert records.finished_record(path, tmp_path) == records.finished_record(path, tmp_path, "f") is not None
    assert records.finished_record(path, tmp_path, "g") is None
    done = [reproduce.records_of(notebook, tmp_path) for notebook in (family, tables)]
    weights.write_text("2")
    assert reproduce.records_of(family, tmp_path) != done[0]
    assert reproduce.records_of(tables, tmp_path) == done[1]  # it only reads the record


def test_given_weights_decide_whether_a_notebook_is_done(tmp_path):
    notebook, found = reproduce.notebook_paths()[4], set()
    profile = load_profile("mini", pretrained={"small": str(tmp_path), "large": "mini-large"})
    for name, words in (("", ""), ("model.safetensors", "1"), ("model.safetensors", "2"),
                        ("model.json", "1"), ("model.json", "2")):
        if name:
            (tmp_path / name).write_text(words)
        found.add(reproduce.sources(notebook, "mini", profile))
    assert len(found) == 5


def test_a_package_that_changes_meanwhile_does_not_count_as_the_one_that_ran(tmp_path, monkeypatch, capsys):
    notebooks, version = reproduce.select(reproduce.notebook_paths(), "11"), ["old"]
    monkeypatch.setattr(reproduce, "notebook_paths", lambda: notebooks)
    monkeypatch.setattr(reproduce, "sources", lambda *_: version[0])

    def pulled(source, copy, values):
        copy.parent.mkdir(exist_ok=True)
        copy.write_text("{}")
        version[0] = "new"

    monkeypatch.setattr(reproduce, "execute", pulled)
    for words in ("done in", "done in", "done and unchanged"):
        assert reproduce.main("smoke", None, str(tmp_path)) == 0
        assert words in capsys.readouterr().out


def test_large_networks_are_fine_tuned_first(tmp_path):
    run = start(tmp_path, "qm9", targets="mu, alpha", arms="GN-OC-S,JMP-L")
    assert [job[0] for job in run._jobs(run.tasks, run.arms)] == ["qm9_mu JMP-L", "qm9_alpha JMP-L",
                                                                  "qm9_mu GN-OC-S", "qm9_alpha GN-OC-S"]


def test_a_fold_that_is_asked_for_is_the_one_that_is_shown(tmp_path, monkeypatch, capsys):
    for fold, value in ((0, 20.0), (3, 38.0)):
        write_json(records.finetune_record_path(tmp_path, "matbench_jdft2d", "JMP-S", fold),
                           {"schema": records.SCHEMA, "task": "matbench_jdft2d", "arm": "JMP-S",
                            "fold": fold, "value": value})
    ends = ["RuntimeError: no memory", ""]  # the first of two runs fails
    monkeypatch.setattr(workbook, "run_jobs", lambda jobs, workers, what: [
        Outcome(job[0], None if end else {}, error=end) for job, end in zip(jobs, ends)])
    command = ["finetune", "--profile", "smoke", "--results-dir", str(tmp_path), "--tasks", "matbench_jdft2d", "--arms"]
    assert main([*command, "JMP-S,GN-OC-S", "--fold", "3"]) == 1  # one of two runs failed
    assert "38.0" in (out := capsys.readouterr().out) and "20.0" not in out and "fold" in out
    ends[0] = ""
    # whatever failed in the command before, which stays on its list
    assert main([*command, "JMP-S", "--fold", "0"]) == 0
    assert json.loads(pool.failures_file(tmp_path).read_text())


def test_a_sentence_for_the_user_comes_without_a_traceback(tmp_path):
    for kind, shown in (("ValueError", False), ("ZeroDivisionError", True)):
        outcome = Outcome("a", error=f"{kind}: the folder is missing", details="Traceback: line 1")
        with pytest.raises(RuntimeError, match="the folder is missing") as caught:
            pool.report(tmp_path, [outcome], "test")
        assert ("Traceback" in str(caught.value)) == shown


def test_only_notebooks_that_take_a_folder_of_published_files_ask_for_it(tmp_path):
    values = {"profile": "paper", "results_dir": str(tmp_path)}
    assert workbook.start(values, ("profile", "results_dir")).profile.data == "published"
    with pytest.raises(ValueError, match="needs data_root"):
        workbook.start(values | {"data_root": ""}, ("profile", "results_dir", "data_root"))


def test_a_reader_that_has_enough_is_no_error():
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run([sys.executable, "-m", "jmp_lib", "data", "list"], cwd=ROOT, stdout=writes,
                          stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments, words", [(["reproduce", "--profile", "minni"], "mini"),
                                              (["finetune", "--profile", "smoke", "--tasks", "qm9_mus"], "mu")])
def test_command_line_says_what_is_wrong(arguments, words):
    done = subprocess.run([sys.executable, "-m", "jmp_lib", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_a_fine_tuning_that_must_pretrain_first_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(workbook, "run_jobs",
                        lambda jobs, *_: [Outcome(job[0], {"task": "qm9_mu", "arm": "JMP-S"}) for job in jobs])
    run = workbook.start({"profile": "smoke", "results_dir": str(tmp_path)}, ("profile", "results_dir"))
    for arms, words in ((["GN-OC-S"], False), (["JMP-S"], True)):
        run.finetune_all(["qm9_mu"], arms)
        assert ("no pre-trained small network" in capsys.readouterr().out) == words
    records.pretrain_record_path(tmp_path, "small").parent.mkdir(parents=True)
    records.pretrain_record_path(tmp_path, "small").write_text("{}")
    run.finetune_all(["qm9_mu"], ["JMP-S"])
    assert "no pre-trained" not in capsys.readouterr().out
