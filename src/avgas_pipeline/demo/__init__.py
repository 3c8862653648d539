"""`avgas demo`: a page to drop a recording on, and see."""
