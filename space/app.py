"""The demo of avgas_pipeline as a Hub Space."""

import os
import threading
from pathlib import Path

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.demo.hearing import Listener
from avgas_pipeline.demo.serving import find_examples, served


PORT = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
# A Space is for many visitors on two cores.
LONGEST_S, LARGEST_MB = 120.0, 20.0

listener = Listener(AVGASPipeline.from_pretrained("avgas-mini"), max_duration_s=LONGEST_S)
examples = find_examples(Path(__file__).with_name("examples"))
# The Hub serves it under a name of its own.
with served(listener, examples, "0.0.0.0", PORT, max_file_mb=LARGEST_MB, any_host=True) as url:
    print(url, flush=True)
    threading.Event().wait()
