"""How is a model made? The recipe, the one training loop, and many models at once.

Nothing is exported here: `fit` is a function and a file, and the recipe must be there before torch is.
"""
