"""`python -m avgas_pipeline`, for `accelerate launch -m avgas_pipeline`."""

from .cli import main


main()
