"""The commands `predict` and `compare`, which answer from stored measurements without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuner.domain.errors import JobError
from tuner.service.next_steps import suggest_command
from tuner.service.options import (
    Beta,
    Format,
    FormatOption,
    JobPath,
    OuterLearningRate,
    OuterMomentum,
    StorageUrl,
    Tau,
)
from tuner.service.output import print_rows, show

if TYPE_CHECKING:
    from search_spaces import AxisValue
    from tuner.service.comparing import AskedConfiguration
    from tuner.service.opening import StudyStore

#: Opens the study database at a URL, or the default database of a job file.
OpenStore = Callable[..., AbstractContextManager["StudyStore"]]
_FORM = "Values such as learning_rate=0.1,batch_size=64; the others are those of `recommended` or, after "
_FORM += "the word `baseline`, of your present settings."


def add_predict_commands(app: typer.Typer, open_store: OpenStore) -> None:
    """Adds the commands to the command line.

    Args:
        app: The command line.
        open_store: Opens the database at a URL, or the default database of a job file.
    """

    @app.command()
    def predict(
        job: JobPath,
        nodes: Annotated[
            int | None, typer.Option(help="Number of nodes; as recommended by default, like all values.")
        ] = None,
        batch_size: Annotated[int | None, typer.Option(help="Global batch size.")] = None,
        learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
        strategy: Annotated[str | None, typer.Option(help="Strategy.")] = None,
        tau: Tau = None,
        beta: Beta = None,
        outer_learning_rate: OuterLearningRate = None,
        outer_momentum: OuterMomentum = None,
        also_set: Annotated[
            list[str] | None,
            typer.Option(
                "--set", metavar="KEY=VALUE", help="Value of any key of the configuration; can be repeated."
            ),
        ] = None,
        storage: StorageUrl = None,
        output_format: FormatOption = Format.TABLE,
    ) -> None:
        """Predict time and price of one configuration from the job's study, without training."""
        from tuner.service.opening import open_job
        from tuner.service.predicting import predict_configuration
        from tuner.service.prediction_views import prediction_data, prediction_rows

        stated = {
            **{"nodes": nodes, "batch_size": batch_size, "learning_rate": learning_rate},
            **{"strategy": strategy, "tau": tau, "beta": beta},
            **{"outer_learning_rate": outer_learning_rate, "outer_momentum": outer_momentum},
        }
        values = {name: value for name, value in stated.items() if value is not None}
        values |= parsed_values(also_set or (), "--set")
        opened = open_job(job)
        with open_store(storage, job, to_read=True) as store:
            prediction, following = predict_configuration(opened, store, values)
        if output_format is Format.JSON:
            show(json.dumps(prediction_data(prediction, following), indent=2))
        else:
            print_rows(prediction_rows(prediction, following), output_format)
            suggest_command(following)

    @app.command()
    def compare(
        first: Annotated[
            str,
            typer.Argument(
                metavar="A", help="The job file; or a study: its number, its name or its job file."
            ),
        ],
        second: Annotated[
            str | None, typer.Argument(metavar="[B]", help="Another study.", show_default=False)
        ] = None,
        one: Annotated[
            str | None,
            typer.Option("--a", metavar="VALUES", help=f"Configuration A. {_FORM}", show_default=False),
        ] = None,
        other: Annotated[
            str | None,
            typer.Option("--b", metavar="VALUES", help=f"Configuration B. {_FORM}", show_default=False),
        ] = None,
        storage: StorageUrl = None,
        output_format: FormatOption = Format.TABLE,
    ) -> None:
        """Compare two configurations of a study, or two studies, without training."""
        from tuner.service.comparing import compare_configurations, compare_studies
        from tuner.service.opening import open_job
        from tuner.service.prediction_views import comparison_data, comparison_rows

        of_studies = second is not None
        if of_studies and (one is not None or other is not None):
            raise JobError("--a and --b compare configurations of one study; leave out the second study")
        if not of_studies and not first.endswith(".toml"):
            raise JobError(
                f"compare {first}: give a job file (.toml) with --a and --b, or two studies by number or name"
            )
        files = [Path(text) for text in (first, second) if text is not None and text.endswith(".toml")]
        with open_store(storage, files[0] if files else Path("paceline.toml"), to_read=True) as store:
            if second is not None:
                comparison, following = compare_studies(store, first, second)
            else:
                defaults = ("recommended", "baseline" if one is None and other is None else "recommended")
                asked = [
                    asked_configuration(text or default, option)
                    for text, default, option in zip((one, other), defaults, ("--a", "--b"), strict=True)
                ]
                comparison, following = compare_configurations(open_job(Path(first)), store, *asked)
        if output_format is Format.JSON:
            show(json.dumps(comparison_data(comparison, following), indent=2))
            return
        print_rows(comparison_rows(comparison), output_format)
        if output_format is Format.TABLE:
            for line in ("", comparison.answer, comparison.decides, *comparison.remarks):
                show(line)
            suggest_command(following)


def asked_configuration(text: str, option: str) -> AskedConfiguration:
    """Reads the value of `--a` or `--b`, such as `baseline,learning_rate=0.1`.

    Args:
        text: The value.
        option: The option, for error messages.

    Raises:
        JobError: The text is not of this form.
    """
    from tuner.service.comparing import AskedConfiguration
    from tuner.service.predicting import BASELINE, RECOMMENDED

    word, *parts = [part.strip() for part in text.split(",")]
    if word in (BASELINE, RECOMMENDED):
        return AskedConfiguration(base=word, values=parsed_values(parts, option))
    return AskedConfiguration(values=parsed_values([word, *parts], option))


def parsed_values(texts: Sequence[str], option: str) -> Mapping[str, AxisValue]:
    """Reads texts such as `learning_rate=0.1`.

    Args:
        texts: The texts.
        option: The option that has the texts, for error messages.

    Raises:
        JobError: A text is not of this form, or names the same key twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.strip().partition("=")
        name = name.strip().replace("-", "_")
        if not sign or not name or not value.strip():
            raise JobError(f"{option} {text!r} is not valid: write KEY=VALUE, such as learning_rate=0.1")
        if name in found:
            raise JobError(f"{option}: {name} is given twice")
        found[name] = _value(value.strip())
    return found


def _value(text: str) -> AxisValue:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
