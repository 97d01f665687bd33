"""The training methods, one module each; `sage_studio.training.runner.METHODS` lists them."""
