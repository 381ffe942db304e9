"""Checkpoints that other authors published: reading their formats, and turning them into our networks' tensors.

The files themselves are never part of Lacuna; they are looked for in the folder LACUNA_PUBLISHED_WEIGHTS names.
"""
