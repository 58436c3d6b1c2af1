"""The history holds one line per epoch, whatever happened in between."""

import json

from lamina.training.history import HistoryLogger


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_epoch_is_a_line_of_json(tmp_path):
    logger = HistoryLogger(tmp_path / "run" / "metrics.jsonl")
    epochs = [{"epoch": n, "step": 5 * n, "dice/größe": 0.1 * n} for n in range(3)]
    for epoch in epochs:
        logger.log_metrics(epoch, step=epoch["step"])
    assert lines(logger.path) == epochs
    assert [path.name for path in logger.path.parent.iterdir()] == ["metrics.jsonl"]


def test_epochs_done_again_replace_their_lines(tmp_path):
    logger = HistoryLogger(tmp_path / "metrics.jsonl")
    for epoch, dice in [(0, 0.1), (1, 0.2), (2, 0.3), (1, 0.4)]:
        logger.log_metrics({"epoch": epoch, "step": epoch, "dice": dice})
    assert [(line["epoch"], line["dice"]) for line in lines(logger.path)] == [(0, 0.1), (1, 0.4)]


def test_a_run_resumed_in_another_process_goes_on_with_the_same_file(tmp_path):
    HistoryLogger(tmp_path / "metrics.jsonl").log_metrics({"epoch": 0})
    HistoryLogger(tmp_path / "metrics.jsonl").log_metrics({"epoch": 1})
    assert lines(tmp_path / "metrics.jsonl") == [{"epoch": 0}, {"epoch": 1}]


def test_a_resumed_run_has_the_history_of_one_that_was_never_stopped(new_run, tmp_path):
    def history(name):
        kept = lines(tmp_path / f"{name}.jsonl")
        timed = {"elapsed_s", "waiting"}
        return [{key: line[key] for key in line.keys() - timed} for line in kept]

    def train(name, **how):
        run = new_run(name)
        run(loggers=[HistoryLogger(tmp_path / f"{name}.jsonl")], **how)
        return run

    def stop(folder):
        return lambda step, *_: step == 2 and (folder / "stop").touch()

    train("whole", epochs=3)
    train("stopped", epochs=3, on_step=stop(tmp_path / "stopped"))
    assert [line["step"] for line in history("stopped")] == [3]
    train("stopped", epochs=3, resume=True)
    assert history("stopped") == history("whole")
    assert [line["step"] for line in history("whole")] == [3, 6, 9]
