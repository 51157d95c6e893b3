"""A small model and a copyist of what it has read, as one: what stands in the prompt costs little."""
