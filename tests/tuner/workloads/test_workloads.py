from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from tuner.domain.errors import DataNotFoundError
from tuner.workloads.char_lm import CharLM
from tuner.workloads.digits import Digits
from tuner.workloads.fashion_mnist import FashionMNIST


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder of IDX files and a text, small enough for tests."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for part, count in (("train", 96), ("t10k", 40)):
        labels = np.arange(count) % 10
        images = rng.integers(0, 60, (count, 28, 28)) + 15 * labels[:, None, None]
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    (folder / "text.txt").write_text("the quick brown fox, naïve; " * 400, encoding="utf-8")
    return folder


def workload_of(kind, places):
    if kind.startswith("digits"):
        return Digits(network=kind.partition("-")[2], width=4)
    if kind.startswith("fashion"):
        return FashionMNIST(width=8, normalization=kind.partition("-")[2], folder=str(places))
    return CharLM(width=16, depth=1, heads=2, context=16, text=str(places / "text.txt"))


KINDS = ["digits-cnn", "digits-mlp", "fashion-group", "fashion-batch", "fashion-none", "char_lm"]


@pytest.fixture(params=KINDS)
def workload(request, places):
    return workload_of(request.param, places)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batch_of(workload, size):
    return workload.training_data().__getitems__(list(range(size)))


def tensors(batch):
    return list(batch) if isinstance(batch, list | tuple) else [batch]


class TestEveryWorkload:
    def test_models_of_one_seed_are_equal(self, workload):
        states = []
        for _ in range(2):
            torch.manual_seed(7)
            states.append(workload.model().state_dict())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    def test_data_are_the_same_each_time(self, workload, request, places):
        again = workload_of(request.node.callspec.params["workload"], places)
        for first, second in (
            (workload.training_data(), again.training_data()),
            (workload.validation_data(), again.validation_data()),
        ):
            assert len(first) == len(second) > 0
            every = range(len(first))
            for one, other in zip(
                tensors(first.__getitems__(every)), tensors(second.__getitems__(every)), strict=True
            ):
                assert torch.equal(one, other)

    def test_a_batch_by_indices_is_what_collating_items_gives(self, workload):
        data = workload.training_data()
        indices = [5, 0, 3]
        collated = default_collate([data[index] for index in indices])
        for one, other in zip(tensors(data.__getitems__(indices)), tensors(collated), strict=True):
            assert torch.equal(one, other)
            assert one.dtype == other.dtype

    def test_loss_is_the_mean_over_samples(self, workload):
        # Without training mode: batch normalisation makes a sample's loss depend on its batch.
        model = workload.model().eval()
        whole = workload.loss(model, batch_of(workload, 8))
        single = [workload.loss(model, workload.training_data().__getitems__([i])) for i in range(8)]
        assert whole.ndim == 0
        torch.testing.assert_close(whole, torch.stack(single).mean(), rtol=1e-5, atol=1e-6)

    def test_training_lowers_the_loss(self, workload):
        torch.manual_seed(0)
        model, batch = workload.model(), batch_of(workload, 32)
        optimizer = workload.optimizer(model.parameters(), 0.01)
        losses = []
        for _ in range(80):
            loss = workload.loss(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.9 * losses[0]

    @torch.no_grad()
    def test_scores_are_values_the_metric_can_have(self, workload):
        torch.manual_seed(0)
        value = workload.score(workload.model().eval(), workload.validation_data())
        assert workload.metric.lower <= value <= workload.metric.upper

    def test_every_parameter_has_a_gradient_and_a_flat_view(self, workload):
        model = workload.model()
        workload.loss(model, batch_of(workload, 4)).backward()
        for parameter in model.parameters():
            assert parameter.is_contiguous()
            assert parameter.grad is not None
            assert parameter.grad.stride() == parameter.stride()


def test_accuracy_counts_the_images_named_right(places):
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scores = torch.nn.Parameter(torch.eye(10)[3])

        def forward(self, images):
            return self.scores.expand(len(images), 10)

    workload = FashionMNIST(folder=str(places))
    assert workload.score(Constant(), workload.validation_data()) == pytest.approx(4 / 40)


def test_digits_are_split_without_overlap():
    workload = Digits()
    training, validation = workload.training_data(), workload.validation_data()
    assert (len(training), len(validation)) == (1400, 397)
    assert set(validation.labels.tolist()) == set(range(10))
    assert len(torch.cat([training.images, validation.images])) == 1797


def test_digits_networks_do_not_mix_samples():
    for network in ("cnn", "mlp"):
        names = {type(module).__name__ for module in Digits(network=network).model().modules()}
        assert not any("Norm" in name for name in names)


def test_fashion_mnist_uses_as_many_images_as_asked(places):
    workload = FashionMNIST(training_samples=20, validation_samples=10, folder=str(places))
    assert (len(workload.training_data()), len(workload.validation_data())) == (20, 10)
    assert len(FashionMNIST(folder=str(places)).training_data()) == 96


def test_only_batch_normalisation_makes_samples_depend_on_each_other(places):
    images = batch_of(FashionMNIST(folder=str(places)), 8)[0]
    for kind, depends in (("group", False), ("none", False), ("batch", True)):
        torch.manual_seed(0)
        model = FashionMNIST(normalization=kind, folder=str(places)).model()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05)
            combined, asynchronous = model(images)[:4], model(images[:4])
        assert torch.allclose(combined, asynchronous, rtol=1e-4, atol=1e-5) is not depends


def test_a_missing_data_set_says_where_to_get_it(tmp_path):
    words = "train-images-idx3-ubyte and train-labels.*apt-get install dataset-fashion-mnist.*IDX files"
    with pytest.raises(DataNotFoundError, match=words):
        FashionMNIST(folder=str(tmp_path)).training_data()


def test_a_damaged_data_set_is_refused(tmp_path, places):
    for file in places.glob("train-*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x60abc")
    with pytest.raises(
        DataNotFoundError, match=r"cannot be read: .* holds 3 values where its header says 96"
    ):
        FashionMNIST(folder=str(tmp_path)).training_data()


def test_char_lm_keeps_the_end_of_the_text_for_scoring(places):
    workload = CharLM(context=16, text=str(places / "text.txt"), validation_samples=10_000)
    size = (places / "text.txt").stat().st_size
    assert len(workload.training_data().text) == size - round(size * 0.05)
    assert len(workload.validation_data().text) == round(size * 0.05)


def test_char_lm_windows_cover_the_text_end_to_end(places):
    workload = CharLM(context=16, text=str(places / "text.txt"))
    first, second = workload.training_data()[0], workload.training_data()[1]
    assert first.shape == (17,)
    assert first[-1] == second[0]


@torch.no_grad()
def test_char_lm_scores_bits_for_each_character_not_byte(places):
    class Uniform(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.zero = torch.nn.Parameter(torch.zeros(()))

        def forward(self, symbols):
            return self.zero.expand(*symbols.shape, 256)

    workload = CharLM(context=16, text=str(places / "text.txt"))
    windows = workload.validation_data()
    targets = windows.__getitems__(range(len(windows)))[:, 1:].flatten().tolist()
    num_characters = sum(byte & 0xC0 != 0x80 for byte in targets)
    assert num_characters < len(targets)
    expected = 8 * len(targets) / num_characters
    assert workload.score(Uniform(), windows) == pytest.approx(expected, rel=1e-5)


def test_char_lm_sees_only_what_came_before(places):
    torch.manual_seed(0)
    workload = CharLM(width=16, depth=2, heads=2, context=16, text=str(places / "text.txt"))
    model = workload.model().eval()
    symbols = batch_of(workload, 2)[:, :-1].long()
    changed = symbols.clone()
    changed[:, 8] = (changed[:, 8] + 1) % 256
    with torch.no_grad():
        before, after = model(symbols), model(changed)
    torch.testing.assert_close(before[:, :8], after[:, :8], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(before[:, 8:], after[:, 8:])


def test_char_lm_reads_the_standard_library_by_default():
    workload = CharLM()
    text = bytes(workload.training_data().text[:200_000].tolist())
    assert b"import " in text
    assert len(workload.validation_data()) == 256


def test_a_missing_text_says_what_to_do(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"text .*none.txt cannot be read: No such file.*Set text in"):
        CharLM(text=str(tmp_path / "none.txt")).training_data()


def test_a_short_text_is_refused(tmp_path):
    (tmp_path / "short.txt").write_text("short " * 20)
    with pytest.raises(
        DataNotFoundError, match=r"is too short: its last twentieth, 6 bytes.*context \+ 1 = 65"
    ):
        CharLM(text=str(tmp_path / "short.txt")).training_data()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Digits(network="rnn"), "network must be 'cnn' or 'mlp', got 'rnn'"),
        (lambda: Digits(width=0), "width must be at least 1, got 0"),
        (lambda: FashionMNIST(depth=0), "width and depth must be at least 1"),
        (lambda: FashionMNIST(normalization="layer"), "normalization must be .* got 'layer'"),
        (lambda: FashionMNIST(validation_samples=0), "validation_samples must be at least 1"),
        (lambda: CharLM(context=0), "context must be at least 1, got 0"),
        (lambda: CharLM(width=10, heads=3), "heads must divide width, got width=10 heads=3"),
    ],
)
def test_impossible_parameters_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
