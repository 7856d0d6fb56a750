from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tuner.domain.errors import JobError
from tuner.past_runs.found import FoundRun
from tuner.past_runs.mapping import Mapping, load_mapping, mapping_text
from tuner.past_runs.suggest import Suggestion, metric_column, suggest


def stated(tmp_path: Path, text: str) -> Mapping:
    path = tmp_path / "mapping.toml"
    path.write_text(text)
    return load_mapping(path)


def suggested(
    columns: str, parameters: str, *, metric: str = "accuracy", knows_epochs: bool = False, **keys: object
) -> Suggestion:
    run = FoundRun(
        name="",
        source=Path("a"),
        format="csv",
        rows=(dict.fromkeys(columns.split(), 1.0),),
        parameters=dict.fromkeys(parameters.split(), "1"),
    )
    return suggest(Mapping.model_validate(keys), [run], metric, knows_epochs=knows_epochs)


def test_a_mapping_file_states_names_numbers_and_products(tmp_path: Path) -> None:
    mapping = stated(
        tmp_path,
        'metric = "acc"\nscale = 0.01\nepoch = "ep"\nbatch_size = ["per_device", 4]\n'
        "learning_rate = 0.1\nnodes = 2\n",
    )
    assert (mapping.batch_size, mapping.learning_rate, mapping.nodes) == (("per_device", 4), 0.1, 2)
    assert (mapping.position, mapping.scale) == ("epoch", 0.01)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("metrics = 'acc'", "metrics is not a key of a mapping; allowed are metric"),
        ("batch_size = true", "batch_size = 'True' is not allowed"),
        ("batch_size = []", "batch_size is an empty list"),
        ("batch_size = 0", "batch_size = '0' is not allowed"),
        ("learning_rate = -1", "learning_rate = '-1' is not allowed"),
        ("scale = inf", "scale = 'inf' is not allowed"),
        ("step = 'a'\nepoch = 'b'", "step and epoch are both stated"),
        ("name_pattern = '('", "not a regular expression"),
        ("name_pattern = 'bs[0-9]+'", "no named group"),
        ("first_epoch = 2", "first_epoch = '2' is not allowed"),
        ("a = ", "not valid TOML"),
        ("a = " + "9" * 5000, "integers must be from -2^63 to 2^63 - 1"),
    ],
)
def test_what_is_wrong_in_a_mapping_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(JobError, match=r"mapping\.toml") as caught:
        stated(tmp_path, text)
    assert words in str(caught.value)


def test_an_absent_mapping_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot be read: No such file"):
        load_mapping(tmp_path / "absent.toml")


def test_the_text_of_a_mapping_is_a_mapping_file(tmp_path: Path) -> None:
    values = {"metric": "eval/acc", "batch_size": ("a b", 4), "learning_rate": 0.1, "step": None}
    text = mapping_text(values)
    assert tomllib.loads(text) == {"metric": "eval/acc", "batch_size": ["a b", 4], "learning_rate": 0.1}
    assert "# step = ..." in text
    assert stated(tmp_path, text).batch_size == ("a b", 4)


@pytest.mark.parametrize(
    ("columns", "metric", "expected"),
    [
        ("accuracy loss", "accuracy", "accuracy"),
        ("train/accuracy val/accuracy", "accuracy", "val/accuracy"),
        ("accuracy eval_accuracy", "accuracy", "eval_accuracy"),
        ("train_acc val_acc", "accuracy", "val_acc"),
        ("train/accuracy train_acc", "accuracy", None),
        ("val_accuracy test_accuracy", "accuracy", None),
        ("epoch_accuracy", "accuracy", "epoch_accuracy"),
        ("validation/macro-F1", "macro_f1", "validation/macro-F1"),
        ("loss", "accuracy", None),
        ("eval/loss train/loss", "loss", "eval/loss"),
    ],
)
def test_the_metric_is_the_validation_s_column_of_its_name(
    columns: str, metric: str, expected: str | None
) -> None:
    assert metric_column(columns.split(), metric) == expected


@pytest.mark.parametrize(
    ("parameters", "batch_size", "learning_rate"),
    [
        ("batch_size lr", "batch_size", "lr"),
        ("data.train_batch_size optim.lr", "data.train_batch_size", "optim.lr"),
        ("learning-rate batch-size", "batch-size", "learning-rate"),
        ("learning_rate lr bs", "bs", "learning_rate"),
        (
            "per_device_train_batch_size world_size gradient_accumulation_steps lr",
            ("per_device_train_batch_size", "world_size", "gradient_accumulation_steps"),
            "lr",
        ),
        ("per_device_train_batch_size total_batch_size lr", "total_batch_size", "lr"),
        # How many devices there were, and what is accumulated, only the user knows.
        ("per_device_train_batch_size lr", None, "lr"),
        ("batch_size accumulate_grad_batches lr", None, "lr"),
        ("eval_batch_size weight_decay", None, None),
        # A step size may be the epochs between two changes of the rate, and eta an option of a sampler.
        ("batch_size scheduler.step_size eta", "batch_size", None),
    ],
)
def test_parameters_are_suggested_by_their_usual_names(
    parameters: str, batch_size: object, learning_rate: str | None
) -> None:
    found = suggested("accuracy step", parameters)
    assert (found.mapping.batch_size, found.mapping.learning_rate) == (batch_size, learning_rate)
    assert ("batch_size" in found.missing) == (batch_size is None)
    assert ("learning_rate" in found.missing) == (learning_rate is None)


def of_values(**parameters: str) -> Suggestion:
    """What is suggested for one run; two underscores in a name stand for a dot."""
    named = {name.replace("__", "."): value for name, value in parameters.items()}
    rows = ({"accuracy": 0.5, "step": 1.0},)
    run = FoundRun(name="", source=Path("a"), format="csv", rows=rows, parameters=named)
    return suggest(Mapping(), [run], "accuracy", knows_epochs=True)


def test_parameters_of_the_training_are_meant_and_not_those_of_the_validation() -> None:
    found = of_values(train__batch_size="32", train__lr="0.1", eval__batch_size="1000", probe__lr="9")
    assert (found.mapping.batch_size, found.mapping.learning_rate) == ("train.batch_size", "train.lr")
    found = of_values(data__batch_size="32", test__batch_size="9", dev__lr="1", optimizer__lr="0.1")
    assert (found.mapping.batch_size, found.mapping.learning_rate) == ("data.batch_size", "optimizer.lr")


def test_of_several_parameters_none_is_chosen_unless_they_agree() -> None:
    found = of_values(batch_size="32", optim__lr="0.1", probe__learning_rate="9", a__nodes="1", b__nodes="2")
    assert found.missing == ("batch_size", "learning_rate", "nodes")
    assert found.candidates["learning_rate"][:2] == ("optim.lr", "probe.learning_rate")
    assert found.candidates["nodes"][:2] == ("a.nodes", "b.nodes")
    found = of_values(batch_size="32", optim__lr="0.1", probe__learning_rate="0.1")
    assert (found.missing, found.mapping.learning_rate) == ((), "probe.learning_rate")


@pytest.mark.parametrize(
    ("parameters", "batch_size"),
    [
        ({"batch_size": "32", "world_size": "8"}, None),
        ({"batch_size": "32", "trainer.devices": "auto"}, None),
        ({"batch_size": "32", "num_nodes": "2"}, None),
        ({"batch_size": "32", "world_size": "1", "nodes": "1"}, "batch_size"),
        ({"global_batch_size": "256", "world_size": "8"}, "global_batch_size"),
        ({"batch_size_per_gpu": "32", "world_size": "8"}, ("batch_size_per_gpu", "world_size")),
        # These may be the devices of one node.
        ({"batch_size_per_gpu": "32", "devices": "4", "num_nodes": "2"}, None),
    ],
)
def test_a_batch_beside_several_devices_is_in_doubt(parameters: dict[str, str], batch_size: object) -> None:
    found = of_values(**parameters, lr="0.1")
    assert found.mapping.batch_size == batch_size
    assert ("batch_size" in found.missing) == (batch_size is None)


@pytest.mark.parametrize(
    ("columns", "knows_epochs", "position", "column"),
    [
        ("accuracy step samples epoch", True, "samples", "samples"),
        ("accuracy trainer/global_step _step epoch", True, "step", "trainer/global_step"),
        ("accuracy step epoch", True, "step", "step"),
        ("accuracy epoch _step", True, "epoch", "epoch"),
        # Calls of Weights & Biases' log are no steps.
        ("accuracy _step _runtime", True, None, None),
        ("accuracy Step", True, None, None),
    ],
)
def test_the_position_is_the_most_exact_column(
    columns: str, knows_epochs: bool, position: str | None, column: str | None
) -> None:
    found = suggested(columns, "batch_size lr", knows_epochs=knows_epochs)
    assert found.mapping.position == position
    assert (getattr(found.mapping, position) if position else None) == column
    assert ("step" in found.missing) == (position is None)


def test_epochs_of_unknown_size_are_asked_for() -> None:
    found = suggested("accuracy epoch", "batch_size lr")
    assert found.missing == ("epoch_samples",)
    assert suggested("accuracy epoch", "batch_size lr", epoch_samples=10).missing == ()


def test_keras_counts_epochs_where_others_count_steps() -> None:
    found = suggested("epoch_accuracy step", "batch_size lr", knows_epochs=True)
    assert (found.mapping.epoch, found.mapping.first_epoch, found.mapping.step) == ("step", 0, None)


def test_what_the_user_states_is_not_changed() -> None:
    found = suggested("accuracy top5 step", "batch_size lr nodes", batch_size=7, nodes=3, step="top5")
    assert (found.mapping.batch_size, found.mapping.nodes, found.mapping.step) == (7, 3, "top5")


def test_groups_of_the_name_pattern_are_parameters() -> None:
    found = suggested("accuracy step", "", name_pattern=r"bs(?P<bs>\d+)_lr(?P<lr>.+)")
    assert (found.mapping.batch_size, found.mapping.learning_rate) == ("bs", "lr")


def test_likely_names_come_first_among_the_candidates() -> None:
    found = suggested("accuracy step", "a b my_batch world lr")
    assert found.candidates["batch_size"][0] == "my_batch"
    assert set(found.candidates["batch_size"]) == {"a", "b", "my_batch", "world", "lr"}
