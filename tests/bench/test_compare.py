"""A regression is told from noise."""

import json
from pathlib import Path

from bench.compare import judge, main


def run(ratio: float, low: float, high: float) -> dict:
    row = {"hub_ratio": ratio, "hub_ratio_spread": [low, high]}
    return {"peers": {"balances 32x10": {"nginx": row}}}


def kept(path: Path, *runs: dict) -> list[str]:
    path.write_text("".join(json.dumps(one) + "\n" for one in runs))
    return ["--history", str(path)]


def test_a_value_outside_of_all_that_was_before_is_worse():
    before = [(4.0, 3.6, 4.4), (4.1, 3.8, 4.5)]
    assert judge((5.5, 5.0, 6.0), before, 0.1) == "worse"
    assert judge((3.0, 2.8, 3.2), before, 0.1) == "better"


def test_spreads_that_touch_are_noise():
    before = [(4.0, 3.6, 4.4), (4.1, 3.8, 5.2)]
    assert judge((5.5, 5.0, 6.0), before, 0.1) == "same"


def test_a_small_change_does_not_count_however_sharp_it_is():
    assert judge((4.2, 4.15, 4.25), [(4.0, 3.99, 4.01)], 0.1) == "same"


def test_the_exit_status_tells_a_regression(tmp_path: Path, capsys):
    path = tmp_path / "history.jsonl"
    assert main(kept(path, run(4, 3.6, 4.4), run(4.1, 3.7, 4.5))) == 0
    assert main(kept(path, run(4, 3.6, 4.4), run(6, 5.5, 6.5))) == 1
    assert "worse" in capsys.readouterr().out


def test_a_first_run_has_nothing_to_be_compared_with(tmp_path: Path):
    assert main(kept(tmp_path / "history.jsonl", run(4, 3.6, 4.4))) == 0
