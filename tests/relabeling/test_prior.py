"""Priors: from texts, files, run folders and modules; what they get to see; what is refused."""

import sys

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from modicum.context import Context
from modicum.errors import DataError, MissingExtraError, ModicumError
from modicum.ledger import Ledger
from modicum.models import build
from modicum.pretraining.learner import backbone_for
from modicum.pretraining.saved import save_encoder
from modicum.relabeling import Prior, PriorFeatures, open_prior
from modicum.store import Store
from modicum.training.recipe import Recipe

RECIPE = Recipe("convnet(width=8)")


class Flat(nn.Module):
    """Shows what a prior gets."""

    def forward(self, x):
        return x.flatten(1)


class TestWhatItSees:
    def test_inputs_as_the_data_say(self, images):
        data = images().train
        seen = Prior(Flat()).features(data, Context())
        torch.testing.assert_close(seen, data.prepare(data.inputs).flatten(1))

    def test_pixels_with_its_own_mean(self, images):
        data = images().train
        mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
        seen = Prior(Flat(), mean=mean, std=std).features(data, Context()).reshape(data.inputs.shape)
        expected = (data.inputs / 255 - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
        torch.testing.assert_close(seen, expected)

    def test_floating_images_are_pixels_already(self, images):
        data = images().train
        scaled = data.replace(inputs=data.inputs / 255)
        prior = Prior(Flat(), mean=(0.5,) * 3, std=(0.2,) * 3)
        torch.testing.assert_close(prior.features(scaled, Context()), prior.features(data, Context()))

    def test_one_channel_becomes_three_and_three_one(self, images):
        gray = images(channels=1).train
        seen = Prior(Flat(), shape=(3, 8, 8)).features(gray, Context()).reshape(-1, 3, 8, 8)
        torch.testing.assert_close(seen[:, 2], gray.prepare(gray.inputs)[:, 0])
        color = images().train
        seen = Prior(Flat(), shape=(1, 8, 8)).features(color, Context()).reshape(-1, 1, 8, 8)
        torch.testing.assert_close(seen, color.prepare(color.inputs).mean(1, keepdim=True))

    def test_resized_to_its_side_and_cut_in_the_center(self, images):
        data = images(side=8).train
        wide = data.replace(inputs=F.pad(data.inputs, (2, 2)))  # 8 x 12
        seen = Prior(Flat(), shape=(3, 8, 8)).features(wide, Context()).reshape(-1, 3, 8, 8)
        torch.testing.assert_close(seen, data.prepare(data.inputs))
        assert Prior(Flat(), shape=(3, 16, 16)).features(wide, Context()).shape == (48, 3 * 16 * 16)

    def test_in_evaluation_mode_without_gradients_and_left_as_it_was(self, images):
        noisy = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Dropout(0.5)).train()
        mean = noisy[1].running_mean.clone()
        a, b = (Prior(noisy).features(images().train, Context()) for _ in range(2))
        assert torch.equal(a, b)
        assert not a.requires_grad
        assert noisy.training
        assert torch.equal(noisy[1].running_mean, mean)

    def test_of_a_network_the_representation(self, images):
        data = images().train
        network = build("convnet(width=8)", data).eval()
        with torch.no_grad():
            expected = network.features(data.prepare(data.inputs))
        torch.testing.assert_close(Prior(network).features(data, Context()), expected)

    def test_the_pass_is_charged(self, images):
        ledger = Ledger()
        Prior(build("convnet(width=8)", images().train)).features(images().train, Context(ledger=ledger))
        assert ledger.total("choose").forward_flops == ledger.total().flops > 0
        assert ledger.total().samples == 48
        assert ledger.total().labels == 0


class TestTexts:
    def test_untrained_is_the_students_initial_network(self, images):
        data = images().train
        prior = open_prior("untrained", data, RECIPE, Context(seed=3))
        student = backbone_for(RECIPE, data, 3)
        assert all(
            torch.equal(a, b) for a, b in zip(prior.encoder.state_dict().values(), student.state_dict().values())
        )

    def test_pixels(self, images):
        data = images().train
        seen = open_prior("pixels", data, RECIPE, Context()).features(data, Context())
        torch.testing.assert_close(seen, data.prepare(data.inputs).flatten(1))

    def test_a_folder_of_pretrain(self, images, tmp_path):
        small = images(channels=1).train
        encoder = backbone_for(RECIPE, small, seed=5).eval()
        save_encoder(Store(tmp_path), encoder, RECIPE, small)
        data = images().train
        prior = open_prior(str(tmp_path), data, Recipe("mlp"), Context())
        assert prior.shape == (1, 8, 8)
        with torch.no_grad():
            expected = encoder(data.prepare(data.inputs).mean(1, keepdim=True))
        torch.testing.assert_close(prior.features(data, Context()), expected)

    def test_weights_with_their_model(self, images, tmp_path):
        gray, data, file = images(channels=1).train, images().train, tmp_path / "w.safetensors"
        network = build("convnet(width=8)", gray, seed=9).eval()
        save_file(network.state_dict(), file)
        prior = open_prior(f"convnet(width=8)@{file}", data, Recipe("mlp"), Context())
        with torch.no_grad():
            expected = network.features(data.prepare(data.inputs).mean(1, keepdim=True))
        torch.testing.assert_close(prior.features(data, Context()), expected)

    def test_trained_on_other_data_is_charged(self, images):
        ledger = Ledger()
        data = images(channels=1).train
        prior = open_prior("trained:digits", data, Recipe("mlp(hidden=8)", epochs=1), Context(ledger=ledger))
        assert prior.features(data, Context()).shape == (48, 8)
        assert ledger.total("choose").labels > 1000
        assert ledger.total("choose").backward_flops > 0
        assert PriorFeatures("trained:digits").trainings() == 1

    def test_another_side_and_statistics(self, images):
        data = images(channels=1).train
        prior = open_prior("pixels", data, RECIPE, Context(), side=4, statistics="imagenet")
        assert prior.shape == (3, 4, 4)
        assert prior.mean == (0.485, 0.456, 0.406)

    @pytest.mark.parametrize("name, package", [("timm:resnet18", "timm"), ("hf:facebook/dinov2-small", "transformers")])
    def test_a_package_that_is_missing(self, images, name, package, monkeypatch):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=rf"{name} needs the package '{package}': pip install 'modicum\["):
            open_prior(name, images().train, RECIPE, Context())

    def test_timm(self, images, monkeypatch):
        class Timm:
            class data:
                @staticmethod
                def resolve_model_data_config(network):
                    return {"input_size": (3, 4, 4), "mean": (0.1,) * 3, "std": (0.2,) * 3}

            @staticmethod
            def create_model(name, pretrained, num_classes):
                assert (name, pretrained, num_classes) == ("small", True, 0)
                return Flat()

        monkeypatch.setitem(sys.modules, "timm", Timm)
        prior = open_prior("timm:small", images().train, RECIPE, Context())
        assert (prior.shape, prior.mean) == ((3, 4, 4), (0.1,) * 3)
        assert prior.features(images(channels=1).train, Context()).shape == (48, 48)

    def test_hugging_face(self, images, monkeypatch):
        class Out:
            def __init__(self, x):
                self.last_hidden_state = x.flatten(2).transpose(1, 2)

        class Network(nn.Module):
            class config:
                image_size = 4

            def forward(self, x):
                return Out(x)

        class Transformers:
            class AutoModel:
                @staticmethod
                def from_pretrained(name, use_safetensors):
                    assert use_safetensors, "nothing is unpickled"
                    return Network()

        monkeypatch.setitem(sys.modules, "transformers", Transformers)
        prior = open_prior("hf:some/vit", images().train, RECIPE, Context())
        assert prior.features(images().train, Context()).shape == (48, 3)

    @pytest.mark.parametrize(
        "text, error",
        [
            ("nothing", "prior='nothing' is unknown; expected 'untrained', 'pixels', 'trained:DATA'"),
            ("mlp@/no/such.safetensors", "/no/such.safetensors cannot be read as safetensors"),
            ("trained:", "prior='trained:' is unknown"),
        ],
    )
    def test_an_unknown_one(self, images, text, error):
        with pytest.raises(ModicumError, match=error):
            open_prior(text, images().train, RECIPE, Context())

    def test_unknown_statistics(self, images):
        with pytest.raises(ModicumError, match="statistics='mine'; expected 'auto', 'data' or 'imagenet'"):
            open_prior("pixels", images().train, RECIPE, Context(), statistics="mine")

    def test_weights_of_another_model(self, images, tmp_path):
        file = tmp_path / "w.safetensors"
        save_file(build("convnet(width=8)", images().train).state_dict(), file)
        with pytest.raises(
            ModicumError, match=r"weights do not fit 'convnet\(width=16\)' for inputs of shape \(3, 8, 8\)"
        ):
            open_prior(f"convnet(width=16)@{file}", images().train, RECIPE, Context())


class TestWhatIsRefused:
    def test_an_output_that_is_no_vector(self, images):
        with pytest.raises(
            DataError, match=r"prior 'Conv2d' gives \(48, 2, 8, 8\) for 48 samples; expected a tensor of"
        ):
            Prior(nn.Conv2d(3, 2, 1)).features(images().train, Context())

    def test_numbers_that_are_not_finite(self, images):
        class Bad(nn.Module):
            def forward(self, x):
                out = x.flatten(1).clone()
                out[7] = torch.nan
                return out

        data = images(ids=torch.arange(100, 148).numpy()).train
        with pytest.raises(DataError, match="prior 'Bad' gives numbers that are not finite, first of sample 107"):
            Prior(Bad()).features(data, Context())

    def test_channels_that_do_not_fit(self, images):
        with pytest.raises(DataError, match="images have 3 channels, but the prior wants 4"):
            Prior(Flat(), shape=(4, 8, 8)).features(images().train, Context())

    def test_no_prior_at_all(self, images):
        with pytest.raises(ModicumError, match="prior is a int; expected a text, a Prior or"):
            PriorFeatures(3).measure(images(), RECIPE, Context())
