"""`make demo`: the main job from an empty directory to a clean host, each step with the call it makes."""
