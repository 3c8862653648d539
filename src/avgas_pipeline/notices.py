"""What libraries say of themselves, which helps nobody who runs a command."""


def quieten() -> None:
    """No warnings and progress bars of diffusers and transformers, those of their imports included."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
