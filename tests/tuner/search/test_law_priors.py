from __future__ import annotations

from tuner.analytic.mixed_posterior import PastValue
from tuner.analytic.step_law import UNSTATED_BYTES
from tuner.domain.ledger import FitRecord
from tuner.search.law_priors import laws_of_fits


def fit(
    model: str, parameters: dict[str, tuple[float, float]], *, fingerprint: str = "f", **summary: object
) -> FitRecord:
    return FitRecord(
        study_id=1,
        fingerprint=fingerprint,
        model=model,
        created_at=0.0,
        num_slices=3,
        parameters=parameters,
        summary=summary,
    )


def test_unknowns_go_to_the_law_they_are_of() -> None:
    past = laws_of_fits(
        [
            fit("seconds", {"log jitter": (-3.0, 0.2)}),
            fit("samples", {"log noise scale": (5.0, 0.4)}, fingerprint="g"),
            fit("another", {"log jitter": (0.0, 0.1)}),
        ],
        "f",
    )
    assert past.seconds == {"log jitter": [PastValue(mean=-3.0, sd=0.2, is_alike=True)]}
    assert past.samples == {"log noise scale": [PastValue(mean=5.0, sd=0.4, is_alike=False)]}


def test_what_a_study_left_at_its_prior_is_no_finding() -> None:
    reported = fit(
        "seconds",
        {"log jitter": (-3.0, 0.5), "log bandwidth (bytes/s)": (20.0, 0.1)},
        at_prior=["log jitter"],
    )
    assert set(laws_of_fits([reported], "f").seconds) == {"log bandwidth (bytes/s)"}


def test_how_far_a_target_is_and_how_emulation_errs_are_a_study_s_own() -> None:
    reported = fit("samples", {"log samples": (9.0, 0.1), "log emulation bias (samples)": (0.1, 0.05)})
    assert laws_of_fits([reported], "f").samples == {}


def test_the_unstated_bytes_of_a_model_are_a_study_s_own() -> None:
    reported = fit("seconds", {UNSTATED_BYTES: (1.0, 0.3), "log bandwidth (bytes/s)": (20.0, 0.9)})
    assert set(laws_of_fits([reported], "f").seconds) == {"log bandwidth (bytes/s)"}


def test_every_study_counts() -> None:
    fits = [fit("seconds", {"log jitter": (value, 0.2)}) for value in (-3.0, -2.0)]
    assert [reported.mean for reported in laws_of_fits(fits, "f").seconds["log jitter"]] == [-3.0, -2.0]


def test_a_parameter_that_was_stored_under_an_older_name_is_still_known() -> None:
    older = {"log bytes a second": (20.0, 0.1), "log bias of emulated seconds": (0.1, 0.05)}
    assert set(laws_of_fits([fit("seconds", older)], "f").seconds) == {"log bandwidth (bytes/s)"}
    left = fit("samples", {"growth of the noise scale": (0.5, 0.2)}, at_prior=["growth of the noise scale"])
    assert laws_of_fits([left], "f").samples == {}
    known = fit("samples", {"growth of the noise scale": (0.5, 0.2)})
    assert set(laws_of_fits([known], "f").samples) == {"noise scale growth"}
