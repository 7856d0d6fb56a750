"""What the paper's experiment trains: rates at stated samples, norms by rank, gradients of many at once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmarks import paper_train
from benchmarks.paper_clocks import CLOCKS, OVERLAP
from benchmarks.paper_network import Network, Norms, _convolution
from benchmarks.paper_prices import priced_anew, with_overlap
from benchmarks.paper_rows import reseconded, rows_of
from benchmarks.paper_stack import stacked_emulation
from benchmarks.paper_train import PaperWorkload, Run, Scorer, points_of, train, trained_of
from tuner.domain.errors import DataNotFoundError
from tuner.emulation import emulation


@pytest.fixture(scope="module")
def _fashion_mnist() -> None:
    try:
        PaperWorkload(samples=100, share=16).training_data()
    except DataNotFoundError as error:
        pytest.skip(str(error))


def run_of(strategy: str, ranks: int, samples: int, clock: str = "fast") -> Run:
    return Run(
        strategy=strategy,
        ranks=ranks,
        batch_size=16 * ranks,
        learning_rate=0.1,
        seed=3,
        clock=clock,
        samples=samples,
        beta=0.8,
    )


def test_the_rate_is_divided_by_ten_at_half_and_three_quarters_of_the_samples() -> None:
    workload = PaperWorkload(samples=1000, share=16)
    factors = [workload.schedule(samples) for samples in (0, 499, 500, 749, 750, 1000)]
    assert factors == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01, 0.01])
    assert {500, 750} <= set(points_of(1000))


@pytest.mark.usefixtures("_fashion_mnist")
@pytest.mark.parametrize("strategy", ["gossip_pull", "gossip_push", "elastic_averaging"])
def test_stacked_ranks_train_as_ranks_one_by_one(strategy: str) -> None:
    ranks = 10
    trained = trained_of(run_of(strategy, ranks, 100_000), CLOCKS["slow"])
    plain, stacked = emulation(trained), stacked_emulation(trained)
    untouched = trained.make_model().vector.detach()  # type: ignore[operator, union-attr]
    for one in (plain, stacked):
        one.run(samples=16 * ranks * 6)
    assert stacked.seconds == plain.seconds
    for own, expected in zip(stacked.ranks, plain.ranks, strict=True):
        torch.testing.assert_close(own.model.vector, expected.model.vector, rtol=1e-4, atol=1e-4)
        assert (own.model.vector - untouched).abs().max() > 0.01  # type: ignore[operator]


@pytest.mark.usefixtures("_fashion_mnist")
def test_a_run_is_priced_on_both_clocks_and_trains_alike_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_train, "POINTS", (0.5, 1.0))
    monkeypatch.setattr(paper_train, "_VALIDATION_SAMPLES", 200)
    first, again = (train(run_of("all_reduce", 2, 640)) for _ in range(2))
    assert first["curve"] == again["curve"]
    assert first["seconds"] == again["seconds"]
    assert set(first["seconds"]) == set(CLOCKS)
    assert first["seconds"]["slow"][-1] > first["seconds"]["fast"][-1] > 0
    # The other clock prices what it would have drawn itself.
    other = train(run_of("all_reduce", 2, 640, clock="slow"))
    assert other["seconds"] == first["seconds"]
    assert other["curve"] == first["curve"]
    rows = rows_of([first])
    for row, same in zip(rows, with_overlap(rows, OVERLAP), strict=True):
        assert same.curve[-1][1] == pytest.approx(row.curve[-1][1], abs=1e-3)
    unhidden = with_overlap(rows, 1.0)
    assert all(own.curve[-1][1] > row.curve[-1][1] for own, row in zip(unhidden, rows, strict=True))


@pytest.mark.usefixtures("_fashion_mnist")
def test_rows_priced_anew_have_the_seconds_of_the_present_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_train, "POINTS", (0.5, 1.0))
    monkeypatch.setattr(paper_train, "_VALIDATION_SAMPLES", 200)
    rows = rows_of([train(run_of("elastic_averaging", 4, 1920)), train(run_of("all_reduce", 4, 640))])
    of_before = [reseconded(row, [0.5 * point[1] for point in row.curve]) for row in rows]
    for row, old, new in zip(rows, of_before, priced_anew(of_before, ["elastic_averaging"]), strict=True):
        if row.strategy == "elastic_averaging":
            assert new.repriced
            assert new.curve[-1][1] == pytest.approx(row.curve[-1][1], rel=1e-3)
            assert [(n, *remainder) for n, _, *remainder in new.curve] == [
                (n, *remainder) for n, _, *remainder in row.curve
            ]
        else:
            assert new == old


def test_samples_are_normalised_by_themselves_in_each_share() -> None:
    torch.manual_seed(0)
    network = Network(share=4)
    nn.init.normal_(network.vector, std=0.3)
    images = torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8)
    combined = network(images)
    asynchronous = torch.cat([network(images[:4]), network(images[4:])])
    torch.testing.assert_close(combined, asynchronous)
    assert not torch.allclose(combined, Network.forward(_with_share(network, 8), images))


def _with_share(network: Network, share: int) -> Network:
    other = copy.deepcopy(network)
    other.share = share
    return other


def test_its_convolution_and_gradient_are_those_of_torch() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 5, 6, 6, dtype=torch.float64, requires_grad=True)  # ranks, channels, n, h, w
    weights = torch.randn(2, 4, 27, dtype=torch.float64, requires_grad=True)
    own = _convolution(images.permute(0, 1, 3, 4, 2).reshape(2, 3, -1), weights, 5, 6)
    expected = torch.stack(
        [
            functional.conv2d(images[rank].transpose(0, 1), weights[rank].view(4, 3, 3, 3), padding=1)
            for rank in range(2)
        ]
    )  # ranks, n, channels, h, w
    torch.testing.assert_close(own.view(2, 4, 6, 6, 5), expected.permute(0, 2, 3, 4, 1))
    back = torch.randn_like(own)
    by_own = torch.autograd.grad((own * back).sum(), (images, weights))
    turned = back.view(2, 4, 6, 6, 5).permute(0, 4, 1, 2, 3)
    by_torch = torch.autograd.grad((expected * turned).sum(), (images, weights))
    torch.testing.assert_close(by_own, by_torch)


def test_scores_use_the_moments_of_other_samples() -> None:
    torch.manual_seed(0)
    network = Network()
    nn.init.normal_(network.vector, std=0.3)
    images = torch.randint(0, 256, (32, 1, 28, 28), dtype=torch.uint8)
    moments = network.moments(images)
    assert len(moments) == 5
    # Under a batch's own moments it is scored as it is trained.
    trained = network.logits(network.vector.unsqueeze(0), images.view(1, 32, 28, 28), Norms())[0]
    torch.testing.assert_close(network.scores(images, moments), trained, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network.scores(images[:3], moments), trained[:3], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("_fashion_mnist")
def test_an_untrained_network_scores_as_chance() -> None:
    workload = PaperWorkload(samples=100, share=16)
    scorer = Scorer(workload.training_data(), workload.validation_data(), 0)  # type: ignore[arg-type]
    torch.manual_seed(0)
    _, accuracy = scorer.score(Network())
    assert 0.02 < accuracy < 0.3
