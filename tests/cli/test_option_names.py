"""What is the same is called, and typed, the same in every verb."""

import pytest
import typer

from lamina.cli.app import app

TIMES = {"time_budget", "job_timeout", "keep", "timeout", "every", "settle"}


def options():
    """Every option of every verb, with the verb."""
    groups = [typer.main.get_command(app)]
    found = []
    for group in groups:
        for verb in group.commands.values():
            if hasattr(verb, "commands"):
                groups.append(verb)
            else:
                found += [(verb, param) for param in verb.params if param.opts[0][:2] == "--"]
    return found


def test_one_thing_has_one_name():
    called = {name for _, option in options() for name in option.opts}
    assert called.isdisjoint({"--time", "--budget", "--start", "--label"})
    assert called >= {"--time-budget", "--from", "--structure", "--seeds"}


def test_a_switch_is_only_given_or_left_out():
    assert [(verb.name, option.name) for verb, option in options() if option.secondary_opts] == []


def test_every_time_is_typed_with_its_unit():
    timed = [(verb, option) for verb, option in options() if option.name in TIMES]
    assert {option.name for _, option in timed} == TIMES
    for verb, option in timed:
        context = verb.make_context(verb.name, [], resilient_parsing=True)
        seconds = [option.process_value(context, text) for text in ("5m", "90", option.default)]
        assert seconds[:2] == [300, 90], verb.name
        assert seconds[2] is None or seconds[2] > 0, verb.name


def test_blanks_around_names_do_not_count(cli):
    done = cli("bench", "tinyunet", "--forms", "fast, onyx")
    assert done.exit_code == 2
    assert "form 'onyx': must be one of" in done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sweep work -o out --cpus 4 --gpus 2", "--cpus, --gpus: only with --cluster."),
        ("sweep work -o out --cpus 1", "--cpus: only with --cluster."),
        ("study glims/table4 --data work --gpus 0", "--gpus: only with --cluster."),
        ("study --data work --out out", "--data, --out: only with the NAME of a study."),
        ("study --fold 0", "--fold: only with the NAME of a study."),
        ("study glims/table4 --seeds 0 --unseen w", "--seeds, --unseen: only with --data."),
        ("study glims/table4 --epochs 3 --out out", "--epochs: only with --data."),
        ("models --pretrained --in-channels 4", "--in-channels, --num-classes: not with"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(cli, line, said):
    done = cli(*line.split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_workers_alone_decide_no_plan(cli, tiny_work):
    done = cli("plan", tiny_work, "--workers", 3)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--workers: is for a plan that is decided again" in done.stderr
