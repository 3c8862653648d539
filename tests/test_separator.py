import pytest
import torch
from tiny import LABELS, tiny_separator

from avgas_pipeline import AudioVisualSeparator


@pytest.fixture
def separator():
    return tiny_separator()


def tokens(batch=2, count=18, seed=0):
    return torch.randn(batch, count, 16, generator=torch.Generator().manual_seed(seed))


def test_heads_have_the_shapes_of_the_design(separator):
    out = separator(tokens(), spectrogram=torch.rand(2, 16, 40))
    assert out.presence_logits.shape == (2, 4)
    assert out.class_logits.shape == (2, 4, len(LABELS))
    assert out.audio_embeds.shape == (2, 4, 8)
    assert out.visual_embeds.shape == (2, 4, 8)
    assert out.condition_tokens.shape == (2, 4, 2, 16)
    assert out.null_tokens.shape == (2, 16)
    assert out.mask_logits.shape == (2, 4, 16, 40)
    for embeds in (out.audio_embeds, out.visual_embeds):
        assert torch.allclose(embeds.norm(dim=-1), torch.ones(2, 4), atol=1e-6)


def test_masks_without_a_spectrogram_follow_the_token_grid(separator):
    assert separator(tokens()).mask_logits.shape == (2, 4, 16, 8)


def test_masks_of_the_first_windows_alone(separator):
    spectrogram = torch.rand(2, 16, 40)
    both, first = (separator(tokens(), spectrogram=rows).mask_logits for rows in (spectrogram, spectrogram[:1]))
    assert first.shape == (1, 4, 16, 40)
    assert torch.allclose(first, both[:1], atol=1e-5)


def test_every_layer_is_taught_in_training(separator):
    assert separator.eval()(tokens()).aux_class_logits is None
    output = separator.train()(tokens())
    layers = separator.config.num_layers
    assert output.aux_presence_logits.shape == (layers, *output.presence_logits.shape)
    assert output.aux_class_logits.shape == (layers, *output.class_logits.shape)


def test_tuple_output(separator):
    out = separator(tokens())
    assert torch.equal(separator(tokens(), return_dict=False)[0], out.presence_logits)


def test_a_cold_label_temperature_draws_the_likeliest_label():
    separator = tiny_separator(label_temperature=0.01)
    separator.token_head.requires_grad_(False)
    for weight in separator.token_head.parameters():
        weight.zero_()
    slots = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    drawn = separator.condition(slots).flatten(1)
    labels = separator.class_head(slots).argmax(dim=-1)
    same = labels[:, None] == labels
    assert 40 < same.sum() < 1600
    # Some slots lie between two labels even so.
    close = torch.cdist(drawn, drawn) < 0.05
    assert (close == same).float().mean() > 0.9


def test_another_label_can_be_drawn():
    separator = tiny_separator(label_temperature=0.1)
    slots = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    own = separator.class_head(slots)
    torch.testing.assert_close(separator.condition(slots, own), separator.condition(slots))
    assert (separator.condition(slots, own.flip(-1)) - separator.condition(slots)).abs().max() > 0.01


def test_without_label_temperature_labels_do_not_matter():
    separator = tiny_separator(label_temperature=None)
    slots = torch.randn(3, 16)
    before = separator.condition(slots)
    separator.class_head.weight.data.normal_()
    assert separator.label_tokens is None and torch.equal(separator.condition(slots), before)
    assert torch.equal(separator.condition(slots, torch.randn(3, separator.config.num_labels)), before)


def test_label_temperature_has_to_be_above_zero():
    with pytest.raises(ValueError, match="`label_temperature` has to be above 0 but is 0"):
        tiny_separator(label_temperature=0)


@pytest.mark.parametrize("shape", [(2, 16, 3, 7), (2, 16, 1, 1)])
def test_four_dimensional_hidden_states(shape):
    separator = tiny_separator(num_prefix_tokens=0, num_frequency_patches=1)
    assert separator(torch.randn(shape)).condition_tokens.shape == (2, 4, 2, 16)


def test_padding_has_no_influence(separator):
    # 2 prefix tokens and a grid of 2 x 8: the last 4 columns are padding.
    clean, dirty = tokens(), tokens()
    dirty[:, 2:].view(2, 2, 8, 16)[:, :, 4:] = 100.0
    fraction = torch.tensor([0.5, 0.5])
    for name in ("presence_logits", "class_logits", "audio_embeds", "condition_tokens"):
        masked = [separator(hidden, valid_fraction=fraction)[name] for hidden in (clean, dirty)]
        assert torch.equal(*masked), name
    assert not torch.equal(separator(clean).presence_logits, separator(dirty).presence_logits)


def test_full_windows_need_no_mask(separator):
    whole = separator(tokens(), valid_fraction=torch.ones(2)).condition_tokens
    assert torch.allclose(whole, separator(tokens()).condition_tokens, atol=1e-6)


def test_rows_of_a_batch_do_not_mix(separator):
    batch = torch.cat([tokens(1, seed=1), tokens(1, seed=2)])
    alone = separator(tokens(1, seed=2)).condition_tokens
    assert torch.allclose(separator(batch).condition_tokens[1:], alone, atol=1e-5)


def test_baselines_are_configurations():
    single = tiny_separator(num_slots=1, num_layers=0, mask_channels=0)
    paper = tiny_separator(num_slots=2, num_layers=0, mask_channels=0)
    assert single(tokens()).condition_tokens.shape == (2, 1, 2, 16)
    assert single(tokens()).mask_logits is None
    out = paper(tokens())
    # The slots hear the audio, and differently.
    assert not torch.allclose(out.audio_embeds[:, 0], out.audio_embeds[:, 1], atol=1e-3)
    assert not torch.allclose(out.audio_embeds[0], out.audio_embeds[1], atol=1e-3)


def test_gradient_checkpointing_changes_nothing(separator):
    def gradients(model):
        model.zero_grad()
        out = model(tokens(), spectrogram=torch.linspace(0, 1, 2 * 16 * 40).view(2, 16, 40))
        (out.condition_tokens.square().sum() + out.mask_logits.square().sum()).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    separator.train()
    plain = gradients(separator)
    separator.enable_gradient_checkpointing()
    checkpointed = gradients(separator)
    assert plain.keys() == checkpointed.keys()
    assert all(torch.allclose(plain[name], checkpointed[name], atol=1e-5) for name in plain)


def test_every_parameter_gets_a_gradient(separator):
    separator.train()
    out = separator(tokens(), spectrogram=torch.rand(2, 16, 40))
    sum(value.square().sum() for value in out.to_tuple()).backward()
    # Unit vectors have a constant square.
    unit = {"audio_embed_head", "visual_embed_head"}
    missing = [name for name, p in separator.named_parameters() if p.grad is None and name.split(".")[0] not in unit]
    assert not missing


def test_save_and_load_keep_labels_and_outputs(separator, tmp_path):
    separator.save_pretrained(tmp_path)
    loaded = AudioVisualSeparator.from_pretrained(tmp_path)
    assert loaded.id2label == dict(enumerate(LABELS))
    assert torch.equal(loaded(tokens()).condition_tokens, separator(tokens()).condition_tokens)
    assert loaded.config.num_labels == len(LABELS)
    assert AudioVisualSeparator(audio_dim=16, num_labels=3, hidden_dim=16, num_slots=1).id2label[2] == "LABEL_2"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(separator, dtype):
    out = separator.to(dtype)(tokens().to(dtype), spectrogram=torch.rand(2, 16, 40).to(dtype))
    assert all(value.dtype == dtype and torch.isfinite(value).all() for value in out.to_tuple())


def test_layerwise_casting(separator):
    expected = separator(tokens()).condition_tokens
    separator.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert torch.isfinite(separator(tokens()).condition_tokens).all()
    assert (separator(tokens()).condition_tokens - expected).abs().mean() < 0.5


def test_compiles_without_graph_breaks(separator):
    expected = separator(tokens(), valid_fraction=torch.tensor([0.5, 1.0]), spectrogram=torch.ones(2, 16, 40))
    compiled = torch.compile(separator, backend="eager", fullgraph=True)
    out = compiled(tokens(), valid_fraction=torch.tensor([0.5, 1.0]), spectrogram=torch.ones(2, 16, 40))
    assert torch.allclose(out.condition_tokens, expected.condition_tokens, atol=1e-6)


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        (torch.zeros(2, 18, 17), "channels"),
        (torch.zeros(2, 17, 16), "frequency patches"),
        (torch.zeros(2, 2, 16), "frequency patches"),
        (torch.zeros(2, 16), "3-D or 4-D"),
    ],
)
def test_hidden_states_that_do_not_fit(separator, hidden, message):
    with pytest.raises(ValueError, match=message):
        separator(hidden)


def test_bad_configurations():
    with pytest.raises(ValueError, match="hidden_dim"):
        tiny_separator(hidden_dim=18, num_attention_heads=4)
    with pytest.raises(ValueError, match="id2label"):
        tiny_separator(id2label={0: "cat meowing", 2: "dog barking"})
    with pytest.raises(ValueError, match="`hop_length` has to be above 0 and below `n_fft`, 256, but is 256"):
        tiny_separator(n_fft=256, hop_length=256)
