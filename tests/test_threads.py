"""One call at a time: a pipeline that is drawing refuses a second call; copies draw side by side, exactly."""

import copy
import threading

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler
from drawing import draw, seeded
from peft import LoraConfig
from tiny import tiny_audio

from avgas_pipeline import AVGASPipeline


# Steps, guidance and sources of each thread's call.
CALLS = ((2, 7.5, 1), (3, 1.0, 2), (4, 3.0, 3), (5, 5.0, 1), (6, 1.0, 1), (3, 9.0, 2), (2, 4.0, 2))
SETTINGS = [
    {"num_inference_steps": steps, "guidance_scale": scale, "num_sources": count, "separate": count > 1}
    for steps, scale, count in CALLS
]
SETTINGS.append({"num_inference_steps": 4, "negative_audio": tiny_audio(seed=3)[0]})


def in_threads(tasks):
    """What each task returns or raises, all begun at the same moment."""
    results = [None] * len(tasks)
    barrier = threading.Barrier(len(tasks))

    def work(number):
        barrier.wait()
        try:
            results[number] = tasks[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def copy_of(pipe):
    return AVGASPipeline.from_pipe(pipe, scheduler=type(pipe.scheduler).from_config(pipe.scheduler.config))


def task(pipe, number):
    return lambda: draw(pipe, tiny_audio(seed=number)[0], seeded(number)[0], **SETTINGS[number]).images


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerAncestralDiscreteScheduler])
def test_copies_in_eight_threads_draw_what_they_draw_alone(pipe, scheduler):
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    expected = [task(pipe, number)() for number in range(8)]
    copies = [copy_of(pipe) for _ in range(8)]
    assert all(other.unet is pipe.unet and other.scheduler is not pipe.scheduler for other in copies)
    for _ in range(3):
        results = in_threads([task(other, number) for number, other in enumerate(copies)])
        assert all(np.array_equal(one, other) for one, other in zip(results, expected, strict=True))


def test_one_pipeline_in_eight_threads_draws_right_or_refuses(pipe):
    expected = [task(pipe, number)() for number in range(8)]
    results = in_threads([task(pipe, number) for number in range(8)])
    refused = [result for result in results if isinstance(result, Exception)]
    for result, right in zip(results, expected, strict=True):
        assert isinstance(result, RuntimeError) or np.array_equal(result, right)
    assert refused and all("from_pipe" in str(error) for error in refused)
    assert np.array_equal(task(pipe, 0)(), expected[0])


def test_copies_that_share_a_scheduler_refuse(pipe):
    other = AVGASPipeline(**pipe.components)
    refused = []

    def callback(_, step, timestep, tensors):
        with pytest.raises(RuntimeError, match="scheduler"):
            draw(other)
        refused.append(step)
        return tensors

    draw(pipe, callback_on_step_end=callback)
    assert refused == [0, 1, 2]
    draw(other)


def test_a_pipeline_works_again_after_an_error_and_when_copied(pipe):
    with pytest.raises(ValueError, match="silent"):
        draw(pipe, np.zeros(16000, np.float32))
    expected = draw(pipe).images

    def callback(_, step, timestep, tensors):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(pipe, callback_on_step_end=callback)
    assert np.array_equal(draw(copy.deepcopy(pipe)).images, expected)


def test_separating_in_threads(pipe):
    recordings = [tiny_audio(seed=number)[0] for number in range(8)]
    expected = [pipe.separate_audio(audio, 16000, num_sources=2) for audio in recordings]
    results = in_threads(
        [lambda audio=audio: pipe.separate_audio(audio, 16000, num_sources=2) for audio in recordings]
    )
    for result, right in zip(results, expected, strict=True):
        assert [source.label for source in result[0]] == [source.label for source in right[0]]
        assert all(np.array_equal(one.audio, two.audio) for one, two in zip(result[0], right[0], strict=True))


def test_copies_with_another_lora_scale_refuse(pipe):
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    other = copy_of(pipe)

    def callback(_, step, timestep, tensors):
        with pytest.raises(RuntimeError, match="LoRA scale"):
            draw(other, cross_attention_kwargs={"scale": 0.5})
        draw(other, num_inference_steps=1)
        return tensors

    draw(pipe, callback_on_step_end=callback, num_inference_steps=1)
    draw(other, cross_attention_kwargs={"scale": 0.5})
    assert torch.is_grad_enabled()
