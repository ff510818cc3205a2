"""Image encoders and zero-shot heads, through open_clip."""
