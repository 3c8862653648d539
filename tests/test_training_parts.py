"""Parts of the training library: random numbers, slots, noise, what is trained, which pictures are learnt."""

import pytest
import torch
from datasets import Dataset
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    IPNDMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.training_utils import EMAModel
from tiny import tiny_separator
from transformers import ASTFeatureExtractor

from avgas_pipeline import AVGASPipeline
from avgas_training.averages import averaged, load_averages, save_averages
from avgas_training.data.selection import choose_designs
from avgas_training.models.distillation import FewSteps
from avgas_training.models.generator import Generator, prepare_weights, set_generator_mode
from avgas_training.models.latents import Noise
from avgas_training.models.separation import SeparationModel, build_separation_model
from avgas_training.models.slots import add_slot_noise, correct_labels, shuffle_slots
from avgas_training.randomness import RowRandom
from avgas_training.settings import GeneratorSettings, SeparatorSettings


def test_random_numbers_of_a_row_depend_on_its_number_alone():
    cpu = torch.device("cpu")
    drawn = [RowRandom(seed, range(4)).normal((4, 8), cpu) for seed in (0, 1, 2**31 - 1)]
    assert torch.equal(drawn[0][2:], RowRandom(0, range(2, 4)).normal((2, 8), cpu))
    assert len({tuple(row.tolist()) for rows in drawn for row in rows}) == 12


def test_slots_are_blurred_by_their_own_spread():
    slots = torch.randn(2, 3, 4096) * torch.tensor([1.0, 10.0, 0.0])[:, None]
    noise = add_slot_noise(slots, 0.3, RowRandom(0, range(2))) - slots
    assert noise.std(dim=-1).tolist() == [pytest.approx([0.3, 3.0, 0.0], rel=0.1)] * 2
    alone = add_slot_noise(slots[1:], 0.3, RowRandom(0, range(1, 2)))
    torch.testing.assert_close(alone[0], (slots + noise)[1])


def test_slots_are_shuffled_within_their_mixture():
    slots = torch.arange(600.0).reshape(200, 3, 1)
    shuffled = shuffle_slots(slots, 0.5, RowRandom(0, range(200)))
    assert (shuffled // 3 == slots // 3).all()
    # In half of the mixtures, one in 27 of which stays as it was.
    assert 70 < (shuffled != slots).any(dim=1).sum() < 125
    assert torch.equal(shuffle_slots(slots, 0.0, RowRandom(0, range(200))), slots)
    assert torch.equal(shuffle_slots(slots[50:], 0.5, RowRandom(0, range(50, 200))), shuffled[50:])


def test_sources_with_a_wrong_label_are_drawn_as_what_they_are():
    logits = torch.tensor([[[3.0, 1.0, 0.0], [0.5, 2.0, 1.9], [9.0, 0.0, 0.0]]])
    for temperature in (0.1, 1.0, 5.0):
        corrected = correct_labels(logits, torch.tensor([[0, 2, -1]]), temperature)
        assert torch.equal(corrected[0, [0, 2]], logits[0, [0, 2]])
        assert (corrected[0, 1] / temperature).softmax(dim=-1).tolist() == pytest.approx([0, 0, 1], abs=1e-3)


SCHEDULERS = [
    *(DDIMScheduler, DDPMScheduler, PNDMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler),
    *(EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, LMSDiscreteScheduler, HeunDiscreteScheduler),
]


@pytest.mark.parametrize("scheduler_class", SCHEDULERS)
def test_noise_is_that_of_the_betas_with_any_scheduler(scheduler_class):
    """Also after the scheduler has drawn, as in validation."""
    scheduler = scheduler_class(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    noise = Noise(scheduler, 0.0)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    amounts = (1 - (1 - betas).cumprod(dim=0)).sqrt()
    for drawn_steps in (None, 25):
        if drawn_steps:
            scheduler.set_timesteps(drawn_steps)
        noisy, timesteps, target = noise.add(torch.zeros(16, 4, 2, 2), RowRandom(0, range(16)))
        assert timesteps.unique().numel() > 10
        assert torch.allclose(noisy, amounts[timesteps, None, None, None] * target, atol=1e-4)


def test_noise_of_flow_matching_does_not_change_with_drawing():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    noise = Noise(scheduler, 0.0)
    scheduler.set_timesteps(25)
    noisy, timesteps, target = noise.add(torch.zeros(16, 4, 2, 2), RowRandom(0, range(16)))
    assert timesteps.unique().numel() > 10
    assert torch.allclose(noisy, timesteps[:, None, None, None] / 1000 * target, atol=1e-5)


@pytest.mark.parametrize("scheduler_class", [EDMEulerScheduler, IPNDMScheduler])
def test_schedulers_without_betas_are_refused(scheduler_class):
    with pytest.raises(ValueError, match=scheduler_class.__name__):
        Noise(scheduler_class(), 0.0)


def test_what_a_scheduler_can_t_teach_is_refused_at_once():
    with pytest.raises(ValueError, match="snr_gamma has no effect with flow matching"):
        Noise(FlowMatchEulerDiscreteScheduler(), snr_gamma=5.0)
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    with pytest.raises(ValueError, match="prediction_type 'flow_prediction' can't be trained"):
        Noise(scheduler)
    with pytest.raises(ValueError, match="prediction_type 'flow_prediction' can't be distilled"):
        FewSteps(scheduler, 4, 12, 3.0)
    with pytest.raises(ValueError, match="teacher_steps has to be at most 1000 but is 2000"):
        FewSteps(DDIMScheduler(), 4, 2000, 3.0)


def test_averages_stand_in_and_are_kept_without_pickles(tmp_path):
    weights = [torch.nn.Parameter(torch.full((3,), float(number))) for number in range(2)]
    ema = EMAModel(weights, decay=0.5)
    for value in (4.0, 8.0):
        with torch.no_grad():
            weights[0].fill_(value)
        ema.step(weights)
    own, mean = weights[0].detach().clone(), ema.shadow_params[0].clone()
    assert not torch.equal(own, mean)
    with pytest.raises(KeyboardInterrupt), averaged(ema, weights):
        assert torch.equal(weights[0], mean)
        raise KeyboardInterrupt
    assert torch.equal(weights[0], own)

    save_averages(ema, tmp_path / "averages.safetensors")
    other = EMAModel(weights, decay=0.9)
    load_averages(other, tmp_path / "averages.safetensors", torch.device("cpu"))
    assert (other.decay, other.optimization_step) == (0.5, 2) and torch.equal(other.shadow_params[0], mean)
    with pytest.raises(RuntimeError, match="other averages"):
        load_averages(EMAModel(weights[:1]), tmp_path / "averages.safetensors", torch.device("cpu"))


def separator_settings(**changed):
    return SeparatorSettings(pretrained_model_name_or_path="untrained", **changed)


def test_a_separator_is_new_only_where_settings_differ_from_the_checkpoints(pipe):
    config = pipe.separator.config
    same = {name: config[name] for name in ("num_slots", "num_layers", "mask_channels", "label_temperature")}
    for settings in (separator_settings(), separator_settings(**same)):
        assert build_separation_model(settings, pipe)[1].separator is pipe.separator
    separator = build_separation_model(separator_settings(num_slots=1, label_temperature=1.0), pipe)[1].separator
    assert (separator.config.num_slots, separator.config.label_temperature) == (1, 1.0)
    assert separator.config.num_layers == config.num_layers
    # The checkpoint's U-Net knows these tokens.
    assert torch.equal(separator.label_tokens.weight, pipe.separator.label_tokens.weight)


def test_a_label_temperature_is_only_for_separators_with_label_tokens(components):
    pipe = AVGASPipeline(**{**components, "separator": tiny_separator(label_temperature=None)})
    separator = build_separation_model(separator_settings(num_slots=1, label_temperature=1.0), pipe)[1].separator
    assert separator.label_tokens is None


def test_a_new_audio_encoder_gets_the_checkpoints_spectrogram_if_it_has_one(pipe):
    settings = separator_settings(new_audio_encoder="resnet18")
    mini = AVGASPipeline.from_pretrained("avgas-mini")
    assert build_separation_model(settings, mini)[0] is mini.audio_feature_extractor
    assert pipe.audio_encoder.main_input_name != "pixel_values"
    extractor, model = build_separation_model(settings, pipe)
    assert (type(extractor), model.audio_encoder.config.num_channels) == (ASTFeatureExtractor, 1)


def test_dropout_acts_on_what_is_trained_alone(pipe):
    generator = Generator(pipe.unet, SeparationModel(pipe.audio_encoder, pipe.separator))
    settings = GeneratorSettings(pretrained_model_name_or_path="untrained", lora_dropout=0.5)
    prepare_weights(settings, generator)
    set_generator_mode(generator, settings.train_separator)
    dropouts = [(name, part.training) for name, part in generator.named_modules() if "lora_dropout.default" in name]
    assert dropouts
    assert all(training for _, training in dropouts)
    assert not generator.separation.audio_encoder.training
    assert not generator.separation.separator.training


def test_designs_are_chosen_by_a_table(tmp_path):
    rows = [("dog", "a"), ("dog", "b"), ("dog", "b"), ("cat", "b"), ("cat", "d")]
    pictures = Dataset.from_list([{"label": label, "source_group": group} for label, group in rows])
    table = tmp_path / "designs.csv"
    table.write_text("label,source_group\ndog,b\ncat,d\n")
    chosen = choose_designs(pictures, str(table))
    assert list(zip(chosen["label"], chosen["source_group"], strict=True)) == [
        ("dog", "b"),
        ("dog", "b"),
        ("cat", "d"),
    ]
    for text, word in (
        ("label,source_group\ndog,c\n", "'c'"),
        ("label,source_group\n", "no picture"),
        ("label\ndog\n", "no CSV table"),
        ("label,source_group\n\xff", "no CSV table"),
    ):
        table.write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=rf"designs\.csv.*{word}"):
            choose_designs(pictures, str(table))
    with pytest.raises(ValueError, match=r"missing\.csv"):
        choose_designs(pictures, str(tmp_path / "missing.csv"))
