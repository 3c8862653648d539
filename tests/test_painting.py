"""Door one: any text-to-image pipeline draws what is heard."""

import json
import threading

import diffusers
import numpy as np
import PIL.Image
import pytest
import soundfile
import torch
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from evaluation_data import fails, report_of, run, write_evaluation_inputs
from painters import NOT_TEXT_TO_IMAGE, PAINTERS, SMALL
from tiny import LABELS, tiny_audio, tiny_components
from typer.testing import CliRunner

from avgas_pipeline import AVGASPipeline, SoundSource, describe
from avgas_pipeline.cli import app
from avgas_pipeline.loaders.painter import _is_text_to_image, load_painter
from avgas_pipeline.loaders.phrases import PHRASES, phrase_of
from avgas_pipeline.loaders.sounds import VGGSOUND_LABELS
from avgas_pipeline.painting import paint_sources
from avgas_pipeline.weighted_prompts import weighted_embeds


def sources_of(*labels):
    return [SoundSource(label) for label in labels]


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


@pytest.fixture(scope="module")
def pipe():
    return AVGASPipeline(**{**tiny_components(), "unet": None, "vae": None, "scheduler": None})


@pytest.fixture(scope="module")
def sd():
    painter = PAINTERS["StableDiffusionPipeline"]()
    painter.set_progress_bar_config(disable=True)
    return painter


SD = {"num_inference_steps": 2, **SMALL["StableDiffusionPipeline"]}


# -- phrases and prompts ----------------------------------------------------------------------------------------------


def test_every_label_has_a_phrase():
    assert list(PHRASES) == list(VGGSOUND_LABELS)
    texts = [phrase.one for phrase in PHRASES.values()]
    assert len(set(texts)) == len(texts)
    for phrase in PHRASES.values():
        for text in phrase:
            assert text == text.strip() and not text.endswith(".") and 1 <= len(text.split()) <= 12
    assert phrase_of("dog barking") == "a dog barking" and phrase_of("dog barking", True) == "dogs barking"
    assert phrase_of("a spaceship") == phrase_of("a spaceship", True) == "a spaceship"


def test_what_is_said_of_sources():
    found = sources_of("raining", "dog barking", "dog barking", None, "warp drive")
    said = describe(found, "a photograph of {}")
    assert said.mixed == "a photograph of rain falling, dogs barking and warp drive"
    assert said.separated == [
        "a photograph of rain falling",
        "a photograph of a dog barking",
        "a photograph of a dog barking",
        None,
        "a photograph of warp drive",
    ]
    weighted = describe(found, weights={"raining": 0, "warp drive": 2})
    assert weighted.mixed == "warp drive and dogs barking" and weighted.separated[0] is None
    assert describe(found, weights=[1, 0, 1, 1, 0]).mixed == "rain falling and a dog barking"


def test_a_prompt_has_what_fits(sd):
    labels = [label for label in VGGSOUND_LABELS if label.startswith("playing")]
    said = describe(sources_of(*labels), "a photograph of {}", tokenizers=[sd.tokenizer])
    assert len(sd.tokenizer(said.mixed).input_ids) <= sd.tokenizer.model_max_length
    assert 1 <= len(said.phrases) < len(labels) and len(said.separated) == len(labels)


@pytest.mark.parametrize("style", ["a photograph", "{} and {}", 3, None])
def test_wrong_styles(style):
    with pytest.raises(ValueError, match="style"):
        describe(sources_of("raining"), style)


def test_nothing_to_describe():
    with pytest.raises(ValueError, match="nothing to describe"):
        describe(sources_of(None))
    with pytest.raises(ValueError, match="weight of 0"):
        describe(sources_of("raining"), weights=[0])


# -- every painter ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PAINTERS))
def test_saved_loaded_and_painted_with(name, pipe, tmp_path):
    painter = PAINTERS[name]()
    painter.set_progress_bar_config(disable=True)
    painter.save_pretrained(tmp_path / "painter")
    options = {"num_inference_steps": 2, "output_type": "np", **SMALL[name]}
    found = [sources_of("dog barking", "raining")]
    out = paint_sources(painter, found, separate=True, generator=seeds(3), **options)
    texts = [*out.prompts, *(source.prompt for source in out.sources[0])]
    assert texts[0] == "a photograph of a dog barking and rain falling"
    pictures = np.stack([out.images[0], *(source.images[0] for source in out.sources[0])])
    by_hand = np.concatenate(painter(prompt=texts, generator=seeds(3, 3, 3), **options).images).reshape(pictures.shape)
    assert np.abs(pictures - by_hand).max() <= 1e-5
    assert not np.allclose(pictures[1], pictures[2], atol=1e-4)

    loaded = load_painter(tmp_path / "painter")
    again = paint_sources(loaded, found, separate=True, generator=seeds(3), **options)
    assert np.abs(again.images[0] - out.images[0]).max() < 1e-4


# Of each kind of text encoder and of noise one; the others take longer than they tell.
FAST = ("FluxPipeline", "SanaPipeline", "StableDiffusionPipeline", "StableDiffusionXLPipeline")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in sorted(PAINTERS)]
)
@pytest.mark.slow
def test_the_command_line_paints(name, tmp_path):
    AVGASPipeline(**tiny_components()).save_pretrained(tmp_path / "model")
    PAINTERS[name]().save_pretrained(tmp_path / "painter")
    soundfile.write(tmp_path / "sound.wav", *tiny_audio(2.0))
    arguments = ["generate", tmp_path / "sound.wav", "--out", tmp_path / "out", "--model", tmp_path / "model"]
    arguments += ["--painter", tmp_path / "painter", "--style", "a drawing of {}", "--separate", "--steps", 2]
    arguments += [part for side in ("height", "width") for part in (f"--{side}", SMALL[name][side])]
    result = CliRunner().invoke(app, [*map(str, arguments), "--num-sources", "2"])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out/sources.json").read_text())
    assert report["painter"] == str(tmp_path / "painter") and report["prompt"].startswith("a drawing of ")
    assert all(source["prompt"].startswith("a drawing of ") for source in report["sources"])
    assert (tmp_path / "out/mixed.png").stat().st_size > 100 and len(list((tmp_path / "out").glob("source-1-*"))) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--style", "a drawing of {}"], "--style is for --painter"),
        (["--painter", "{painter}", "--style", "a drawing"], "style"),
        (["--painter", "{painter}", "--prompt", "at night"], "--prompt does not go with --painter"),
        (["--painter", "{painter}", "--negative-audio", "{sound}"], "--negative-audio does not go with --painter"),
        (["--painter", "{folder}/nothing"], "no such file or folder"),
        (["--painter", "{folder}/model"], "text-to-image"),
        (["--offload", "--device", "cpu"], "--offload needs an accelerator"),
        (["--height", "33"], "multiples of 2"),
    ],
)
def test_wrong_command_lines(options, words, tmp_path):
    AVGASPipeline(**tiny_components()).save_pretrained(tmp_path / "model")
    PAINTERS["StableDiffusionPipeline"]().save_pretrained(tmp_path / "painter")
    soundfile.write(tmp_path / "sound.wav", *tiny_audio(1.0))
    places = {"painter": tmp_path / "painter", "sound": tmp_path / "sound.wav", "folder": tmp_path}
    # What is in braces for good is a style.
    options = [part if "drawing" in part else part.format(**places) for part in options]
    command = ["generate", tmp_path / "sound.wav", "--out", tmp_path / "out", "--model", tmp_path / "model"]
    result = CliRunner().invoke(app, [*map(str, command), "--num-sources", "1", *options])
    fails(result, words)
    assert not (tmp_path / "out").exists()


# -- how it is called -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_batch_rows", [None, 1, 2])
def test_one_batch_or_parts_of_it(pipe, sd, max_batch_rows):
    audio = [tiny_audio(2.0, seed)[0] for seed in range(2)]
    sizes = []
    hook = sd.unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    options = {"num_sources": 2, "separate": True, "num_images_per_prompt": 2, "output_type": "np", **SD}
    out = pipe.paint(
        audio, sd, sampling_rate=16000, generator=seeds(*range(4)), max_batch_rows=max_batch_rows, **options
    )
    hook.remove()
    rows = sum(2 * (1 + len(found)) for found in out.sources)
    guided = 2 if sd.do_classifier_free_guidance else 1
    assert max(sizes) == guided * min(max_batch_rows or rows, rows)
    assert out.images.shape[0] == 4
    # Each picture is what the painter draws of its prompt, from the noise of its mixed picture.
    alone = sd(out.sources[1][0].prompt, generator=torch.Generator().manual_seed(3), output_type="np", **SD).images[0]
    assert np.abs(out.sources[1][0].images[1] - alone).max() <= 1e-5


def test_audio_is_encoded_once_and_not_for_known_sources(pipe, sd):
    calls = []
    hook = pipe.audio_encoder.register_forward_hook(lambda *args: calls.append(1))
    out = pipe.paint(
        *tiny_audio()[:1], sd, sampling_rate=16000, num_sources=2, separate=True, generator=seeds(0), **SD
    )
    assert len(calls) == 1 and out.sources[0][0].audio is not None
    again = pipe.paint(painter=sd, sources=out.sources, separate=True, generator=seeds(0), **SD)
    hook.remove()
    assert len(calls) == 1
    assert np.array_equal(again.images[0], out.images[0])
    images, sources = pipe.paint(painter=sd, sources=out.sources, generator=seeds(0), return_dict=False, **SD)
    assert np.array_equal(images[0], out.images[0]) and sources[0][0].images == []


def test_everything_else_goes_to_the_painter(pipe, sd):
    seen = []

    def on_step(painter, step, timestep, tensors):
        seen.append((step, painter.guidance_scale, tensors["latents"].shape[0]))
        return tensors

    found = [sources_of("raining")]
    options = {"output_type": "np", **SD, "guidance_scale": 3.0}
    shape = sd(["x"], output_type="latent", **SD).images.shape
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    out = paint_sources(
        sd, found, True, negative_prompt="people", latents=latents, callback_on_step_end=on_step, **options
    )
    prompts, negatives = ["a photograph of rain falling"] * 2, ["people"] * 2
    by_hand = sd(prompts, negative_prompt=negatives, latents=latents.repeat(2, 1, 1, 1), **options).images
    assert seen == [(0, 3.0, 2), (1, 3.0, 2)]
    assert np.abs(out.images[0] - by_hand[0]).max() <= 1e-5
    with pytest.raises(ValueError, match="prompt_embeds"):
        paint_sources(sd, found, prompt_embeds=torch.zeros(1, 77, 16))
    with pytest.raises(ValueError, match="texts for 1"):
        paint_sources(sd, found, negative_prompt=["a", "b"], **SD)
    with pytest.raises(ValueError, match="generators"):
        paint_sources(sd, found, generator=seeds(1, 2), **SD)
    with pytest.raises(ValueError, match="latents"):
        paint_sources(sd, found, latents=latents.repeat(5, 1, 1, 1), **SD)


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusionXLPipeline"])
def test_weights_order_and_weigh(name):
    painter = PAINTERS[name]()
    painter.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "output_type": "np", "generator": seeds(0), **SMALL[name]}
    found = [sources_of("raining", "dog barking")]

    def painted(*weights):
        options["generator"] = seeds(0)
        return paint_sources(painter, found, weights=[list(weights)], **options)

    plain, muted, ordered, faint = painted(1, 1), painted(0, 1), painted(1, 2), painted(1, 1e-6)
    assert muted.prompts == ["a photograph of a dog barking"] and len(muted.sources[0]) == 1
    assert ordered.prompts == ["a photograph of a dog barking and rain falling"]
    assert faint.prompts == plain.prompts
    by_hand = painter(plain.prompts, **{**options, "generator": seeds(0)}).images
    assert np.abs(plain.images - by_hand).max() <= 1e-5
    steps = [np.abs(painted(1, weight).images - plain.images).mean() for weight in (1.0, 0.7, 0.3, 0.0001)]
    assert steps[0] <= 1e-6 and steps[1] > 1e-6 and steps == sorted(steps)


def test_other_painters_are_told_the_order(pipe):
    painter = PAINTERS["FluxPipeline"]()
    painter.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "output_type": "np", **SMALL["FluxPipeline"]}
    found = [sources_of("raining", "dog barking")]
    out = paint_sources(painter, found, weights=[[0.5, 2]], generator=seeds(0), **options)
    assert out.prompts == ["a photograph of a dog barking and rain falling"]
    assert np.abs(out.images - painter(out.prompts, generator=seeds(0), **options).images).max() <= 1e-5


@pytest.mark.parametrize("style", ["a photograph of {}", "rain falling on a dog barking: {}"])
def test_the_words_of_a_phrase_weigh_and_no_others(sd, style):
    said = describe(sources_of("raining", "dog barking"), style, weights=[0.25, 1])
    assert said.phrases == [("a dog barking", 1.0), ("rain falling", 0.25)]
    start = style.index("{}")
    embeds = weighted_embeds(sd, [said.mixed], [said.phrases], start)["prompt_embeds"][0]
    options = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    plain, empty = (sd.encode_prompt([text], **options)[0][0] for text in (said.mixed, ""))
    # The tests' tokenizer has a token for every character but blanks, and one that begins the text.
    place = said.mixed.index("rain falling", start)
    first = 1 + len(said.mixed[:place].replace(" ", ""))
    last = first + len("rainfalling")
    expected = plain.clone()
    expected[first:last] = empty[first:last] + 0.25 * (plain[first:last] - empty[first:last])
    assert (embeds - expected).abs().max() < 1e-5 and (plain - expected).abs().max() > 1e-3


def test_a_safety_checker_is_spoken_of(sd, monkeypatch):
    def call(self, prompt, **options):
        pictures = [PIL.Image.new("RGB", (8, 8)) for _ in prompt]
        return StableDiffusionPipelineOutput(images=pictures, nsfw_content_detected=[False, True][: len(prompt)])

    monkeypatch.setattr(type(sd), "__call__", call)
    with pytest.warns(UserWarning, match="blackened what it drew of .'a photograph of rain falling'"):
        paint_sources(sd, [sources_of("raining")], separate=True)


def test_unknown_sounds(pipe, sd):
    probs = torch.tensor([0.1, 0.5, 0.2, 0.1, 0.1])
    found = [[SoundSource("raining"), SoundSource(None, label_probs=probs, is_drawn=False)]]
    out = pipe.paint(painter=sd, sources=found, separate=True, **SD)
    assert out.prompts == ["a photograph of rain falling"]
    assert out.sources[0][1].prompt is None and out.sources[0][1].images == []
    found[0][1].is_drawn = True
    out = pipe.paint(painter=sd, sources=found, separate=True, **SD)
    assert out.prompts == ["a photograph of rain falling and a dog barking"] and len(out.sources[0][1].images) == 1
    assert LABELS[1] == "dog barking" and out.sources[0][1].label is None
    alone = [[SoundSource(None, label_probs=probs, is_drawn=False)]]
    with pytest.raises(ValueError, match="draw_unknown"):
        pipe.paint(painter=sd, sources=alone, **SD)
    assert pipe.paint(painter=sd, sources=alone, draw_unknown=True, **SD).prompts == ["a photograph of a dog barking"]


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NOT_TEXT_TO_IMAGE))
def test_other_pipelines_are_refused(name, pipe, tmp_path):
    other = NOT_TEXT_TO_IMAGE[name]()
    with pytest.raises(ValueError, match="text-to-image"):
        pipe.paint(*tiny_audio()[:1], other, sampling_rate=16000)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="text-to-image"):
        load_painter(tmp_path / "other")


def test_wrong_painters(pipe, tmp_path):
    found = [sources_of("raining")]
    for wrong, word in (
        (None, "needed"),
        (3, "text-to-image pipeline"),
        (AVGASPipeline(**tiny_components()), "text alone"),
    ):
        with pytest.raises(ValueError, match=word):
            pipe.paint(painter=wrong, sources=found)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        pipe.paint(painter=str(tmp_path / "nothing"), sources=found)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        pipe.paint(painter=tmp_path / "file", sources=found)
    with pytest.raises(ValueError, match="exactly one"):
        pipe.paint(painter=PAINTERS["StableDiffusionPipeline"]())


@pytest.mark.parametrize("sources", [[], [[]], sources_of("raining"), [["raining"]], "raining", {}])
def test_wrong_sources(pipe, sd, sources):
    for options in ({}, {"draw_unknown": True}):
        with pytest.raises(ValueError, match="list of each soundscape's sources"):
            pipe.paint(painter=sd, sources=sources, **options)


@pytest.mark.parametrize("name", ["sampling_rate", "num_sources", "presence_threshold", "audio_track"])
def test_what_is_said_of_audio_does_not_go_with_sources(pipe, sd, name):
    with pytest.raises(ValueError, match=name):
        pipe.paint(painter=sd, sources=[sources_of("raining")], **{name: 1})


def test_arguments_that_a_painter_does_not_take(pipe, sd):
    for name in ("true_cfg_scale", "max_sequence_length"):
        with pytest.raises(ValueError, match=f"does not take `{name}`"):
            pipe.paint(painter=sd, sources=[sources_of("raining")], **{name: 1})


DRAW_FROM_TEXT = {name for name in dir(diffusers) if name.endswith("Pipeline")} & {
    pipeline.__name__ for pipeline in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()
}
OTHER = {
    "AceStepPipeline", "AudioLDM2Pipeline", "CogVideoXPipeline", "HeliosPipeline", "HeliosPyramidPipeline",
    "KandinskyPriorPipeline", "LattePipeline", "LTXPipeline", "SanaVideoPipeline", "ShapEPipeline",
    "StableCascadeDecoderPipeline", "StableCascadePriorPipeline", "StableDiffusionInpaintPipeline",
    "StableDiffusionUpscalePipeline", "StableDiffusionXLImg2ImgPipeline", "TextToVideoZeroPipeline",
    "WanPipeline", "WuerstchenPriorPipeline",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(DRAW_FROM_TEXT | OTHER))
def test_which_pipelines_of_diffusers_can_paint(name):
    kind = getattr(diffusers, name)
    # Without components: only the class counts.
    can_paint = _is_text_to_image(kind.__new__(kind))
    needs_more = "Control" in name or name in OTHER
    assert can_paint == (name in DRAW_FROM_TEXT and not needs_more)


def test_pickled_and_missing_weights(sd, tmp_path):
    sd.save_pretrained(tmp_path / "sd")
    weights = tmp_path / "sd/unet/diffusion_pytorch_model.safetensors"
    torch.save({}, tmp_path / "sd/unet/diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ValueError, match="sd"):
        load_painter(tmp_path / "sd")


def test_one_painter_in_two_threads(pipe, sd):
    inside, go_on = threading.Event(), threading.Event()
    errors = []

    def wait(painter, step, timestep, tensors):
        inside.set()
        go_on.wait(30)
        return tensors

    def first():
        paint_sources(sd, [sources_of("raining")], callback_on_step_end=wait, **SD)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(30)
    try:
        paint_sources(sd, [sources_of("raining")], **SD)
    except RuntimeError as error:
        errors.append(str(error))
    go_on.set()
    thread.join()
    assert len(errors) == 1 and "painter" in errors[0]


# -- in evaluation ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tags_to_prompt_is_a_baseline(tmp_path):
    inputs = write_evaluation_inputs(tmp_path, num_mixtures=3)
    painter = tmp_path / "painter"
    PAINTERS["StableDiffusionPipeline"]().save_pretrained(painter)
    result = run(inputs, tmp_path / "out", "--baseline", f"prompts={painter}")
    assert result.exit_code == 0, result.output
    report = report_of(tmp_path / "out")
    assert list(report["results"]["mixed"])[:2] == ["model", "prompts"] and "prompts" in report["results"]["separated"]
    assert report["results"]["sound"]["prompts"] == report["results"]["sound"]["model"]
    assert report["systems"]["prompts"]["painter"] == str(painter)
    assert f"drawn by {painter}" in (tmp_path / "out/report.md").read_text()

    # A mixed picture is what the painter draws of the prompt of the labels found, from the soundscape's own noise.
    sd = PAINTERS["StableDiffusionPipeline"]()
    sd.set_progress_bar_config(disable=True)
    records = json.loads((tmp_path / "out/systems/prompts/00000/records.json").read_text())
    said = describe(sources_of(*records[1]["labels"]), "a photograph of {}")
    expected = sd(said.mixed, num_inference_steps=2, generator=torch.Generator().manual_seed(1)).images[0]
    with PIL.Image.open(tmp_path / "out/systems/prompts/00000/00001.png") as drawn:
        assert np.abs(np.asarray(drawn, int) - np.asarray(expected, int)).max() <= 1
    fails(run(inputs, tmp_path / "other", "--baseline", "prompts"), "text-to-image pipeline")
    fails(run(inputs, tmp_path / "other", "--no-draw", "--baseline", f"prompts={painter}"), "nothing is drawn")
    fails(run(inputs, tmp_path / "other", "--baseline", f"prompts={tmp_path / 'nothing'}"), "no such folder")


def test_the_command_line_says_what_a_prompt_has_no_room_for(tmp_path, monkeypatch):
    AVGASPipeline(**tiny_components()).save_pretrained(tmp_path / "model")
    PAINTERS["StableDiffusionPipeline"]().save_pretrained(tmp_path / "painter")
    soundfile.write(tmp_path / "sound.wav", *tiny_audio(2.0, 1))
    command = ["generate", tmp_path / "sound.wav", "--out", tmp_path / "out", "--model", tmp_path / "model"]
    command += ["--painter", tmp_path / "painter", "--steps", 1, "--num-sources", 3, "--max-batch-rows", 1]
    # The tests' tokenizer takes 75 characters.
    result = CliRunner().invoke(app, [*map(str, command), "--style", f"{'very ' * 12}quiet {{}}"])
    assert result.exit_code == 0, result.output
    assert "has no room for" in result.stderr
