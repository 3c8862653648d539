"""The losses, by hand and at their limits."""

import math

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from tiny import tiny_audio, tiny_components

from avgas_pipeline import AudioVisualSeparatorOutput
from avgas_pipeline.data.clips import BACKGROUND_LABEL
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_training.data.soundscapes import Collator
from avgas_training.losses.autoencoder import edge_l1, multiscale_mse
from avgas_training.losses.contrastive import info_nce
from avgas_training.losses.diffusion import diffusion_loss
from avgas_training.losses.matching import SeparationTargets, match_sources
from avgas_training.losses.separation import separation_losses, single_embedding_losses
from avgas_training.models.separation import SeparationModel
from avgas_training.models.target_builder import mask_targets
from avgas_training.models.teacher import Teacher


def output_of(class_logits, embeds=None):
    batch, slots = class_logits.shape[:2]
    embeds = torch.nn.functional.normalize(torch.randn(batch, slots, 4), dim=-1) if embeds is None else embeds
    return AudioVisualSeparatorOutput(
        presence_logits=torch.zeros(batch, slots),
        class_logits=class_logits,
        audio_embeds=embeds,
        visual_embeds=embeds,
        condition_tokens=None,
        null_tokens=None,
    )


def test_slots_are_matched_to_their_sources():
    logits = torch.full((1, 3, 4), -5.0)
    logits[0, 0, 2] = logits[0, 2, 1] = 5.0
    slots = match_sources(output_of(logits), SeparationTargets(torch.tensor([[1, 2, -1]])))
    assert slots.tolist() == [[2, 0, -1]]


def test_places_without_a_source_may_be_anywhere():
    logits = torch.full((1, 3, 4), -5.0)
    logits[0, 0, 2] = logits[0, 2, 1] = 5.0
    targets = SeparationTargets(torch.tensor([[-1, 1, 2]]))
    assert match_sources(output_of(logits), targets).tolist() == [[-1, 2, 0]]
    both = (
        separation_losses(output_of(logits), targets),
        single_embedding_losses(output_of(logits[:, :1]), targets),
    )
    assert all(torch.isfinite(loss) for losses in both for loss in losses.values())


def test_of_two_slots_with_one_source_the_present_one_has_it():
    output = output_of(torch.full((1, 3, 4), -5.0))
    output.class_logits[0, 1:, 2] = 5.0
    output.presence_logits[0] = torch.tensor([0.0, -2.0, 2.0])
    assert match_sources(output, SeparationTargets(torch.tensor([[2]]))).tolist() == [[2]]


def test_more_sources_than_slots_leave_some_out():
    slots = match_sources(output_of(torch.zeros(1, 2, 4)), SeparationTargets(torch.tensor([[0, 1, 2]])))
    assert sorted(slots[0].tolist()) == [-1, 0, 1]


def test_slots_before_every_layer_learn_the_same():
    torch.manual_seed(0)
    output, targets = output_of(torch.randn(2, 3, 4)), SeparationTargets(torch.tensor([[0, 1], [2, -1]]))
    assert "aux" not in separation_losses(output, targets)
    output.aux_presence_logits = torch.stack([output.presence_logits] * 2)
    output.aux_class_logits = torch.stack([output.class_logits] * 2)
    losses = separation_losses(output, targets)
    assert losses["aux"].item() == pytest.approx((losses["presence"] + losses["label"]).item())


def test_losses_do_not_depend_on_the_order_of_sources():
    torch.manual_seed(0)
    output = output_of(torch.randn(2, 3, 4))
    labels = torch.tensor([[0, 1], [2, 3]])
    embeds = torch.nn.functional.normalize(torch.randn(2, 2, 4), dim=-1)
    first = separation_losses(output, SeparationTargets(labels, audio_embeds=embeds))
    second = separation_losses(output, SeparationTargets(labels.flip(1), audio_embeds=embeds.flip(1)))
    for name in first:
        assert first[name].item() == pytest.approx(second[name].item(), abs=1e-6)


def test_masks_are_best_at_the_ideal_ratio():
    ratio = torch.tensor([0.1, 0.5, 0.9, 1.0]).reshape(1, 1, 2, 2)
    weight = torch.tensor([1.0, 2.0, 3.0, 0.0]).reshape(1, 2, 2)
    targets = SeparationTargets(torch.zeros(1, 1, dtype=torch.long), mask_ratio=ratio, mask_weight=weight)

    def loss(mask):
        output = AudioVisualSeparatorOutput(
            presence_logits=torch.ones(1, 1),
            class_logits=torch.zeros(1, 1, 3),
            audio_embeds=torch.ones(1, 1, 1),
            visual_embeds=torch.ones(1, 1, 1),
            condition_tokens=torch.zeros(1, 1, 1, 1),
            null_tokens=torch.zeros(1, 1),
            mask_logits=torch.logit(mask, eps=1e-6),
        )
        return separation_losses(output, targets)["mask"].item()

    # -(r ln r + (1 - r) ln(1 - r)): 0.3251 for 0.1 and 0.9, ln 2 for 0.5; what weighs nothing does not count.
    assert loss(ratio) == pytest.approx((0.3251 + 2 * 0.6931 + 3 * 0.3251) / 6, abs=1e-3)
    assert all(loss((ratio + change).clamp(0, 1)) > loss(ratio) for change in (-0.05, 0.05))


def test_masks_of_the_first_mixtures_alone():
    torch.manual_seed(0)
    labels = torch.tensor([[0, 1], [2, -1], [3, 1]])
    ratio, weight, masks = torch.rand(3, 2, 4, 5), torch.rand(3, 4, 5), torch.randn(3, 3, 4, 5)

    def losses(mixtures, masked):
        output = output_of(logits[:mixtures], embeds[:mixtures])
        output.mask_logits = masks[:masked]
        targets = SeparationTargets(labels[:mixtures], mask_ratio=ratio[:masked], mask_weight=weight[:masked])
        return separation_losses(output, targets)

    logits, embeds = torch.randn(3, 3, 4), torch.nn.functional.normalize(torch.randn(3, 3, 4), dim=-1)
    assert losses(3, 2)["mask"].item() == pytest.approx(losses(2, 2)["mask"].item())
    assert losses(3, 2)["label"].item() != pytest.approx(losses(2, 2)["label"].item())


def test_presence_and_label_losses_by_hand():
    logits = torch.zeros(1, 2, 4)
    logits[0, 1, 3] = math.log(3.0)
    losses = separation_losses(output_of(logits), SeparationTargets(torch.tensor([[3]])))
    assert losses["label"].item() == pytest.approx(math.log(2))
    assert losses["presence"].item() == pytest.approx(math.log(2))


def test_info_nce_by_hand():
    embeds = torch.eye(2)
    # Distances 0 and 2, temperature 1: log(1 + e^-2).
    loss = info_nce(embeds, embeds, torch.tensor([0, 1]), temperature=1.0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-5)
    # The same label is no negative, and neither is an empty row.
    for labels in ([0, 0], [0, -1]):
        assert info_nce(embeds, embeds, torch.tensor(labels), temperature=1.0).item() == pytest.approx(0.0, abs=1e-6)


def test_single_embedding_wants_the_mean():
    labels = torch.tensor([[0, 1], [2, -1]])
    logits = torch.full((2, 1, 4), -20.0)
    logits[0, 0, :2] = logits[1, 0, 2] = 20.0
    losses = single_embedding_losses(output_of(logits), SeparationTargets(labels))
    assert losses["label"].item() == pytest.approx(0.5 * math.log(2), abs=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weights_by_hand(kind):
    scheduler = DDPMScheduler(prediction_type=kind)
    timesteps = torch.tensor([10, 900])
    prediction, target = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    snr = scheduler.alphas_cumprod[timesteps] / (1 - scheduler.alphas_cumprod[timesteps])
    units = {"epsilon": snr, "v_prediction": snr + 1, "sample": 1}
    expected = (snr.clamp(max=5) / units[kind]).mean().item()
    assert diffusion_loss(prediction, target, timesteps, scheduler, 5.0).item() == pytest.approx(expected)
    assert diffusion_loss(prediction, target, timesteps, scheduler).item() == pytest.approx(1.0)


def test_autoencoder_losses_by_hand():
    target = torch.zeros(1, 3, 16, 16)
    # A constant error of 0.5 at five sizes, and no edge.
    assert multiscale_mse(target + 0.5, target).item() == pytest.approx(5 * 0.25)
    assert edge_l1(target + 0.5, target).item() == pytest.approx(0.5)
    checkers = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    # Gone at half size; edges differ by 2, both ways.
    assert multiscale_mse(target + checkers, target).item() == pytest.approx(1.0)
    assert edge_l1(target + checkers, target).item() == pytest.approx(1.0 + 2 * 2.0)


def test_mixtures_of_backgrounds_alone_have_masks_of_nothing():
    config = {"n_fft": 256, "hop_length": 64, "num_mask_bands": 16}
    noise = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0)) / 8
    spectrogram, ratio, weight = mask_targets(noise, torch.zeros(2, 3, 4000), config, 16000)
    assert spectrogram.isfinite().all() and not ratio.any() and weight.max() == 1


def test_mixtures_of_backgrounds_alone_have_no_clean_sources():
    components, (waveform, rate) = tiny_components(), tiny_audio(2.0)
    clips = [{"id": "a", "label": BACKGROUND_LABEL, "audio": {"array": waveform, "sampling_rate": rate}}]
    sampler = MixtureSampler(clips, num_sources=1, duration_s=1.28, target=None)
    extractor, encoder = components["audio_feature_extractor"], components["audio_encoder"]
    batch = Collator(extractor, encoder, {}, 2, with_stems=True)([sampler.sample(0)] * 3)
    model = SeparationModel(encoder, components["separator"])
    embeds = Teacher(model, EMAModel(model.parameters())).embed(batch["clean_encoder"], batch["labels"])
    assert embeds.shape == (3, 2, 8) and not embeds.any()
    targets = SeparationTargets(batch["labels"], audio_embeds=embeds)
    losses = separation_losses(output_of(torch.randn(3, 3, 4), torch.randn(3, 3, 8)), targets)
    assert all(loss.isfinite() for loss in losses.values())
