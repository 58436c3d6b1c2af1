"""The history holds one line per epoch, whatever happened in between."""

import json

from lamina.folders.run import RunFolder, append_epoch


def lines(run):
    return [json.loads(line) for line in run.history_file.read_text("utf-8").splitlines()]


def test_every_epoch_is_a_line_of_json(tmp_path):
    run = RunFolder(tmp_path / "run")
    epochs = [{"epoch": n, "step": 5 * n, "dice/größe": 0.1 * n} for n in range(3)]
    for epoch in epochs:
        append_epoch(run, epoch)
    assert lines(run) == epochs
    assert [path.name for path in run.root.iterdir()] == ["metrics.jsonl"]


def test_epochs_done_again_replace_their_lines(tmp_path):
    run = RunFolder(tmp_path)
    for epoch, dice in [(0, 0.1), (1, 0.2), (2, 0.3), (1, 0.4)]:
        append_epoch(run, {"epoch": epoch, "step": epoch, "dice": dice})
    assert [(line["epoch"], line["dice"]) for line in lines(run)] == [(0, 0.1), (1, 0.4)]
