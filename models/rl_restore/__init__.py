"""RL-Restore: a toolbox of small restoration networks and an agent that chains them.

Yu et al., "Crafting a Toolchain for Image Restoration by Deep Reinforcement Learning", CVPR 2018.
"""
