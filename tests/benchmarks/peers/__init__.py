"""The five training steps in each library: each module has `build(task) -> Built`."""
