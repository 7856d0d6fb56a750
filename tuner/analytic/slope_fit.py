"""A fitted linear regression (slope model) of one quantity, for the candidates of a search.

Candidates are the configurations that the search may recommend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces import Configuration
from tuner.analytic.laws import Array
from tuner.analytic.mixed_posterior import shown_name, unknown_sentences, weights_sentence
from tuner.analytic.slopes import SlopeModel
from tuner.analytic.speeds import Speeds


@dataclass(frozen=True, kw_only=True)
class SlopeFit:
    """A fitted linear regression (slope model) of one quantity, for the candidates of a search.

    Args:
        quantity: `seconds per sample` or `samples to target`.
        names: Names of the regression coefficients, which are those of the columns; the first one is
            `intercept`.
        model: The posterior of the quantity's logarithm, for all candidates (configurations that may be
            recommended).
        rows: Maps each candidate to its index in `model`.
    """

    quantity: str
    names: tuple[str, ...]
    model: SlopeModel
    rows: Mapping[Configuration, int]

    def speeds(self, configurations: Sequence[Configuration], rng: np.random.Generator) -> Speeds:
        """Predicts the logarithm of seconds per sample; only for a regression of seconds per sample.

        Args:
            configurations: The candidates to predict.
            rng: Random generator of the posterior samples.
        """
        rows = [self.rows[configuration] for configuration in configurations]
        return Speeds(
            mean=self.model.mean[rows],
            sd=np.sqrt(self.model.variance[rows]),
            draws=self.model.draws(rng)[:, rows],
        )

    def log_samples_draws(
        self, kinds: Sequence[Configuration], runs: Sequence[int | None], rng: np.random.Generator
    ) -> Array:
        """Predicts the logarithm of samples to target; only for a regression of samples to target.

        Arguments and result are those of `SamplesModel.log_samples_draws`. `runs` has no effect, since the
        posterior of a candidate already includes the observation of its run.
        """
        return np.asarray(self.model.draws(rng)[:, [self.rows[kind] for kind in kinds]], dtype=float)

    @property
    def between_moments_sd(self) -> float:
        """Standard deviation of the quantity's logarithm between measurements of the same configuration."""
        return self.model.own_sd

    def summary(self) -> list[str]:
        """Returns sentences for the user about the fitted regression coefficients."""
        pairs = zip(self.names[1:], self.model.slopes[1:], self.model.slopes_sd[1:], strict=True)
        found = [f"{shown_name(name)} {slope:+.2f} ({sd:.2f})" for name, slope, sd in pairs]
        lines = [weights_sentence(self.model.weights)]
        if found:
            lines.insert(
                0,
                f"Change of log({self.quantity}) per unit of each column, with its standard deviation: "
                f"{', '.join(found)}.",
            )
        return lines + unknown_sentences(self.at_prior())

    def parameters(self) -> dict[str, tuple[float, float]]:
        """Returns the posterior mean and standard deviation of each coefficient; the keys are the names."""
        values = zip(self.names, self.model.slopes, self.model.slopes_sd, strict=True)
        return {name: (float(slope), float(sd)) for name, slope, sd in values}

    def findings(self) -> dict[str, object]:
        """Returns facts about the fit that are stored with a study."""
        return {"at_prior": self.at_prior(), "sentences": self.summary()}

    def at_prior(self) -> list[str]:
        """Returns the names of the coefficients that the measurements hardly determine.

        Their posterior is nearly as wide as their prior.
        """
        widths = np.max([component.prior.sd for _, component in self.model.parts], axis=0)
        known = zip(self.names, self.model.slopes_sd, widths, strict=True)
        return [name for name, sd, width in known if sd > 0.9 * width]
