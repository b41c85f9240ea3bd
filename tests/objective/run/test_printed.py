"""Numbers in lines of every form that people print."""

from __future__ import annotations

import json

import pytest

from objective.run.printed import lines_of_file
from objective.run.printed import number_alone
from objective.run.printed import plain
from objective.run.printed import Progress
from objective.run.printed import progress_of
from objective.run.printed import Reader


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("accuracy: 0.93", "0.93"),
        ("accuracy=0.93", "0.93"),
        ("accuracy 0.93", "0.93"),
        ("Accuracy:\t93.1% (best so far)", "93.1"),
        ("final test accuracy: 0.5 after 3 epochs", "0.5"),
        ("epoch 3 | loss=0.5, accuracy=0.9, lr=1e-3", "0.9"),
        ("accuracy: 0.1 accuracy: 0.2", "0.2"),
        ("{'eval_loss': 0.5, 'accuracy': 0.5, 'epoch': 1.0}", "0.5"),
        ("accuracy: 0.5 (best accuracy: 0.3)", "0.5"),
        ("best accuracy: 0.3, accuracy: 0.5 | Max: accuracy 0.7", "0.5"),
        ("Best accuracy: 0.3, best accuracy: 0.4", "0.4"),
        ("epoch 3 (accuracy: 0.5)", "0.5"),
        ('{"step": 3, "accuracy": 1e-3}', "0.001"),
        ('{"test": {"accuracy": "0.25"}}', "0.25"),
        ("│   accuracy   │   0.77   │", "0.77"),
        ("accuracy: 2,634.5", "2,634.5"),
        ("accuracy: -1.5e+3", "-1.5e+3"),
        ("accuracy: nan", "nan"),
        ("accuracy: -inf", "-inf"),
        ("accuracy: .5,", ".5"),
        ("accuracy: 12.3s", "12.3"),
        ("val_accuracy: 0.1", None),
        ("accuracy_std: 0.1", None),
        ("accuracy: nano", None),
        ("accuracy: 1.2.3", None),
        ("accuracy: 1,2", None),
        ("accuracy: 0,532", None),
        ("accuracy=-0,532,100", None),
        ("accuracy: 2024-01-01", None),
        ("accuracy: 01/02/2024", None),
        ("accuracy 10:30", None),
        ("accuracy=1e-3-4", None),
        ("accuracy: 93/100", "93"),
        ("accuracy: 0.5-", "0.5"),
        ("accuracy: tensor(0.5, device='cuda:0')", "0.5"),
        ("{'loss': np.float64(3.5), 'accuracy': np.float64(0.5)}", "0.5"),
        ("accuracy: array([0.5])", "0.5"),
        ("accuracy = [0.5]", "0.5"),
        ("accuracy: tensor([0.5, 0.6])", None),
        ("accuracy: [0.5, 0.6]", None),
        ("accuracy (5 runs): 0.5", None),
        ("New best accuracy: 0.5 (previous accuracy: 0.3)", "0.5"),
        ("**accuracy**: 0.5", "0.5"),
        ("- `accuracy`: **0.5**", "0.5"),
        ("accuracy -> 0.5", "0.5"),
        ("accuracy is 0.5", "0.5"),
        ("accuracy island 0.5", None),
        ("inaccuracy: 0.5", None),
        ("accuracy: 0.5 | config: " + " ".join(f"lr{i}=0.1" for i in range(60)), "0.5"),
        ("accuracy=0.5\t" + "\t".join(f"lr{i}=0.1" for i in range(100)), "0.5"),
        ("accuracy: 0.5,'a':" + ",'a':" * 200, "0.5"),
        ("x" * 287 + "\taccuracy: 1,234" + "x" * 800, None),
        ("accuracy: 0.5" + "." * 800 + "accuracy: 0.6", None),
        ("accuracy: 0.5 " + "." * 800 + " accuracy: 0.6", "0.6"),
        ("x" * 289 + " accuracy: 0.5" + "1" * 500, None),
        ("." * 800 + "in" + "accuracy: 0.6" + " " * (300 - len("accuracy: 0.6")), None),
    ],
)
def test_a_metric_is_found_in_every_form_of_its_name(line: str, text: str | None) -> None:
    assert Reader("accuracy").metric(line) == text


def test_a_metrics_name_may_hold_anything() -> None:
    assert Reader("loss").metric("loss: \u0131nf") is None and number_alone("\u0131nf") is None
    assert Reader("loss").numbers('{"\\ud800": 1, "a\\u0000": 2, "b": 3}') == {"b": 3.0}
    assert Reader("Test  accuracy").metric("Test accuracy : 0.5") is None
    assert Reader("Test accuracy").metric("Test   accuracy: 0.5") == "0.5"
    assert Reader("top-1 (%)").metric("top-1 (%) = 71") == "71"
    assert Reader("best f1").metric("best f1: 0.5, f1: 0.7") == "0.5"
    assert Reader("eval/f1").metric("eval/f1: 0.5, f1: 0.7") == "0.5"
    assert Reader("test.f1").metric(json.dumps({"test": {"f1": 0.5}, "f1": 1})) == "0.5"


def test_other_numbers_are_kept_by_their_names() -> None:
    read = Reader("x").numbers
    assert read("{'loss': np.float64(3.5), 'lr': tensor(0.1), 'b': [1, 2]}") == {
        "loss": 3.5,
        "lr": 0.1,
    }
    assert read("epoch 3: train_loss=0.5 (lr: 1e-3), time: 12.5s") == {
        "train_loss": 0.5,
        "lr": 0.001,
        "time": 12.5,
    }
    assert read('{"a": {"b": 1, "c": true}, "d": "no", "e": 2.5}') == {"a.b": 1.0, "e": 2.5}
    assert read(json.dumps({"a": 10**400, "b": 1})) == {"b": 1.0}
    assert read("loss: 0.5, " + "." * 800 + " lr: 0.1") == {"loss": 0.5, "lr": 0.1}
    assert read("date: 2026-11-28, time: 12:30") == {}
    assert read("loss: 0.5 (best loss: 0.3), best: 0.2") == {"loss": 0.5, "best": 0.2}


def test_colours_are_taken_off() -> None:
    assert plain("\x1b[1;32maccuracy\x1b[0m: 0.5 \x1b[K\n") == "accuracy: 0.5"


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("step 00012 (34.5%) | loss: 3.21 | lrm: 1.00", Progress(34.5, True, 3.21)),
        ("iter 100: loss 3.2, time 20ms", Progress(100, False, 3.2)),
        ("step 250: train loss 2.9, val loss 3.0", Progress(250, False, 2.9)),
        ("Epoch [3/10], Loss: 0.5", Progress(30, True, 0.5)),
        ("Epoch 3 / 10", Progress(30, True, None)),
        ("step 1 of 4: loss 0.5", Progress(25, True, 0.5)),
        ("step 5/4: loss 0.5", Progress(5, False, 0.5)),
        ("step 0/0: loss 0.5", Progress(0, False, 0.5)),
        ('{"step": 7, "loss": 2.5}', Progress(7, False, 2.5)),
        ("{'loss': 0.4, 'epoch': 1.0}", Progress(1, False, 0.4)),
        ("epoch=3 train_loss=0.5", Progress(3, False, 0.5)),
        ("step 10: loss 0.5 " + "." * 800, Progress(10, False, 0.5)),
        ("loss: 0.5", None),
        ("stepping 3 loss 1", None),
    ],
)
def test_progress_is_a_step_with_or_without_a_loss(line: str, progress: Progress | None) -> None:
    assert progress_of(line) == progress


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("0.5\n", ["0.5"]),
        ("a: 1\nb: 2\n", ["a: 1", "b: 2"]),
        ('\ufeff{\n "a": 1\n}\n', ['{"a": 1}']),
        ('{"a": 1}\n{"a": 2}\n', ['{"a": 1}', '{"a": 2}']),
        ('[{"a": 1}, {"a": 2}]', ['{"a": 1}', '{"a": 2}']),
        ("e, acc\n1,0.5\n2,0.75\n", ["e, acc", "1,0.5", "2,0.75", "e: 2", "acc: 0.75"]),
        ("e;acc\n1;0.5\n", ["e;acc", "1;0.5", "e: 1", "acc: 0.5"]),
        ("acc\n0.9\n0.5\n", ["acc", "0.9", "0.5", "acc: 0.5"]),
        (
            "e,loss,acc\n1,0.7,\n1,,0.5\n2,0.6,\n3,0.",
            [
                *("e,loss,acc", "1,0.7,", "1,,0.5", "2,0.6,", "3,0."),
                "e: 2",
                "loss: 0.6",
                "acc: 0.5",
            ],
        ),
        ('acc,note\n0.5,"acc: 0.3"\n', ["acc,note", '0.5,"acc: 0.3"', "acc: 0.5"]),
        ("\tacc\n1\t93 %\n", ["\tacc", "1\t93 %", ": 1", "acc: 93 %"]),
        ("acc\t0.5\nloss\t0.3\n", ["acc\t0.5", "loss\t0.3"]),
        ("e 1\tacc: 0.5\nend\tloss: 0.3\n", ["e 1\tacc: 0.5", "end\tloss: 0.3"]),
        ("", []),
        ("a,b\n1," + "2" * 200_000, ["a,b", "1," + "2" * 200_000]),  # no cell of CSV is so long
    ],
)
def test_a_file_is_read_as_if_it_were_printed(text: str, lines: list[str]) -> None:
    assert lines_of_file(text) == lines
