"""`distill.py`: few steps of the student go where many of the teacher lead, in whole weights and in LoRA layers."""

import distill as script
import numpy as np
import PIL.Image
import pytest
import torch
import training_runs as runs
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from tiny import tiny_audio, tiny_components, tiny_separator
from train_autoencoder import build_autoencoder
from training_inputs import write_training_inputs
from training_runs import curve

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini
from avgas_pipeline.loaders.sounds import SOUNDS
from avgas_training.models.distillation import FewSteps
from avgas_training.settings import AutoencoderSettings


GUIDANCE = 3.0
LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Read-only by convention."""
    return write_training_inputs(tmp_path_factory.mktemp("distilling"))


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    """A pipeline that draws labels, whatever it hears, and composes mixed pictures."""
    torch.manual_seed(0)
    settings = AutoencoderSettings(block_out_channels=[8, 16], latent_channels=4)
    separator = tiny_separator(id2label=dict(enumerate(sound.label for sound in SOUNDS)))
    for weight in separator.token_head[-1].parameters():
        torch.nn.init.zeros_(weight)
    components = {**tiny_components(), "vae": build_autoencoder(settings), "separator": separator}
    components["scheduler"] = DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    folder = tmp_path_factory.mktemp("drawing")
    AVGASPipeline(**components, compose_sources=True, default_guidance_scale=GUIDANCE).save_pretrained(folder)
    return folder


def settings(out, **changed):
    return {
        "output_dir": out,
        "num_examples": 16,
        "train_batch_size": 4,
        "max_train_steps": 4,
        "checkpointing_steps": 2,
        "validation_steps": 4,
        "num_inference_steps": 2,
        "teacher_steps": 4,
        "dataloader_num_workers": 0,
        "logging_steps": 1,
        "lr_warmup_steps": 1,
        "mixed_precision": "no",
        **changed,
    }


def of_labels(drawing, out, **changed):
    data = {"pretrained_model_name_or_path": drawing, "dataset": find_soundscapes_mini(), "full": True}
    return settings(out, **{**data, "learning_rate": 1e-3, **changed})


def of_mixtures(inputs, out, **changed):
    data = {"pretrained_model_name_or_path": inputs / "untrained", "dataset": inputs / "clips", "num_examples": 8}
    lora = {} if changed.get("full") else {"rank": 4}
    return settings(out, **{**data, **lora, "learning_rate": 1e-3, **changed})


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
def test_the_target_is_where_ddim_gets_with_guidance(prediction_type):
    scheduler = DDIMScheduler(prediction_type=prediction_type, clip_sample=False)
    few = FewSteps(scheduler, num_inference_steps=4, teacher_steps=8, guidance_scale=GUIDANCE)
    ddim = DDIMScheduler.from_config(few.scheduler.config)
    ddim.set_timesteps(8)
    latents = torch.randn(4, 2, 3, 3, generator=torch.manual_seed(0))

    def predict(noisy, timesteps, conditions):
        return torch.tanh(noisy + conditions["bias"]) * (1 + timesteps.view(-1, 1, 1, 1) / 1000)

    conditions, without = {"bias": 0.3}, {"bias": -0.1}
    steps = torch.arange(4)
    target = few.target(predict, latents, steps, conditions, without)
    reached = few.move(target, latents, few.timesteps[:, 0], few.timesteps[:, -1])
    for row, start in enumerate(range(0, 8, 2)):
        expected = latents[row : row + 1]
        for t in ddim.timesteps[start : start + 2]:
            null, given = (predict(expected, t[None], each) for each in (without, conditions))
            expected = ddim.step(null + GUIDANCE * (given - null), t, expected)[0]
        assert torch.allclose(reached[row : row + 1], expected, rtol=1e-3, atol=1e-4), row
    assert torch.equal(few.timesteps[:, 0], few.scheduler.timesteps)


def test_a_student_that_says_the_target_has_no_loss():
    few = FewSteps(DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True), 4, 12, 1.0)
    steps = torch.tensor([0, 1, 2, 3])
    noisy, target = torch.randn(2, 4, 2, 3, 3, generator=torch.manual_seed(0))
    signal, noise = few.levels(few.timesteps[:, 0][steps])
    velocity = (signal * noisy - target) / noise
    assert few.loss(velocity, target, noisy, steps) < 1e-8
    assert few.loss(velocity + 0.1, target, noisy, steps) > 1e-3


def test_a_teacher_that_knows_the_picture_is_the_target():
    few = FewSteps(DDIMScheduler(prediction_type="sample"), 2, 6, 1.0)
    known = torch.randn(2, 1, 2, 2, generator=torch.manual_seed(0))
    target = few.target(lambda *_: known, torch.randn(2, 1, 2, 2), torch.tensor([0, 1]), {}, {})
    assert torch.allclose(target, known, atol=1e-4)


@pytest.fixture(scope="module")
def distilled(drawing, tmp_path_factory):
    out = tmp_path_factory.mktemp("distilled") / "run"
    runs.run(script.main, of_labels(drawing, out))
    return out


def test_the_result_draws_in_few_steps_without_guidance(drawing, distilled):
    pipe = AVGASPipeline.from_pretrained(distilled)
    assert pipe.config.default_num_inference_steps == 2 and pipe.config.default_guidance_scale == 1.0
    assert pipe.scheduler.config.timestep_spacing == "trailing" and pipe.config.compose_sources
    again = AVGASPipeline(**pipe.components)
    assert again.config.default_num_inference_steps == 2 and again.config.default_guidance_scale == 1.0
    calls = []
    pipe.set_progress_bar_config(disable=True)
    pipe(
        *tiny_audio(),
        num_sources=2,
        callback_on_step_end=lambda pipe, step, t, kwargs: calls.append(int(t)) or kwargs,
        generator=torch.manual_seed(0),
    )
    assert calls == [999, 499]
    before = runs.weights(drawing, "unet")
    assert any(not torch.equal(weight, before[name]) for name, weight in runs.weights(distilled, "unet").items())
    assert runs.holds_averages(runs.weights(distilled, "unet"), distilled / "checkpoint-4")
    for part in ("separator", "vae"):
        before = runs.weights(drawing, part)
        assert all(torch.equal(weight, before[name]) for name, weight in runs.weights(distilled, part).items())
    sheet = np.asarray(PIL.Image.open(distilled / "validation-4.png"))
    side = pipe.default_size[0]
    assert sheet.shape == (2 * side, 8 * side, 3)


@pytest.mark.slow
def test_it_learns(drawing, tmp_path):
    changed = {"max_train_steps": 150, "num_examples": 4, "learning_rate": 2e-3, "checkpointing_steps": 1000}
    runs.run(script.main, of_labels(drawing, tmp_path / "run", validation_steps=1000, **changed))
    losses = list(curve(tmp_path / "run", "distillation").values())
    assert np.mean(losses[-30:]) < 0.8 * np.mean(losses[:30])


def test_lora_layers_of_mixtures_leave_the_weights_as_they_were(inputs, tmp_path):
    out = tmp_path / "run"
    runs.run(script.main, of_mixtures(inputs, out))
    before = AVGASPipeline.from_pretrained(inputs / "untrained")
    with pytest.warns(UserWarning, match="is not loaded with the pipeline"):
        pipe = AVGASPipeline.from_pretrained(out)
    assert before.config.default_num_inference_steps != 2
    for part in ("unet", "separator", "vae", "audio_encoder"):
        given = runs.weights(inputs / "untrained", part)
        assert all(torch.equal(weight, given[name]) for name, weight in runs.weights(out, part).items()), part
    assert (out / LORA).exists()
    # It draws as its layers learnt to, also where the command line loads them by itself.
    assert pipe.config.default_num_inference_steps == 2 and pipe.config.default_guidance_scale == 1.0
    assert pipe.scheduler.config.timestep_spacing == "trailing" and not pipe.scheduler.config.clip_sample
    assert "What the teacher draws, and below it what the student does:" in (out / "README.md").read_text()
    pipe.set_progress_bar_config(disable=True)
    call = {"num_sources": 1, "output_type": "np"}
    plain = pipe(*tiny_audio(), generator=torch.manual_seed(0), **call).images
    pipe.load_lora_weights(out)
    with_layers = pipe(*tiny_audio(), generator=torch.manual_seed(0), **call).images
    assert np.abs(plain - with_layers).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("full", [True, False])
def test_killed_run_goes_on_exactly(inputs, tmp_path, full):
    straight, out = tmp_path / "straight", tmp_path / "run"
    runs.run(script.main, of_mixtures(inputs, straight, full=full, mixed_precision="bf16"))
    command = runs.command("distill.py", of_mixtures(inputs, out, full=full, mixed_precision="bf16"))
    runs.kill_after(out / "checkpoint-2", "trainer_state.json", command)
    result = runs.launch([*command, "--resume_from_checkpoint", "latest"])
    assert result.returncode == 0, result.stderr
    if full:
        expected = runs.weights(straight, "unet")
        assert all(torch.equal(weight, expected[name]) for name, weight in runs.weights(out, "unet").items())
    else:
        assert (straight / LORA).read_bytes() == (out / LORA).read_bytes()


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"num_inference_steps": 3}, "num_inference_steps has to divide"),
        ({"teacher_steps": 5}, "teacher_steps"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"rank": 0}, "rank"),
        ({"num_sources": "3 1"}, "num_sources"),
        ({"separated_fraction": 2}, "separated_fraction"),
    ],
)
def test_wrong_use(inputs, tmp_path, changed, word):
    with pytest.raises(ValueError, match=word):
        runs.run(script.main, of_mixtures(inputs, tmp_path / "run", **changed))


@pytest.mark.parametrize("changed", [{"separated_fraction": 0.2}, {"dataset_layout": "nonsense"}])
def test_settings_of_mixtures_are_refused_for_pictures_of_labels(drawing, tmp_path, changed):
    (name,) = changed
    with pytest.raises(ValueError, match=f"{name} has no effect where pictures of labels are learnt from"):
        runs.run(script.main, of_labels(drawing, tmp_path / "run", **changed))


def test_flow_matching_is_refused():
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler"):
        FewSteps(FlowMatchEulerDiscreteScheduler(), 2, 4, 1.0)
