"""Starting workers and watching them: on this machine now, by a scheduler later."""
