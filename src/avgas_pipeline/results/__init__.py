"""What is written of a recording: pictures, sounds, sources.json, the overview."""
