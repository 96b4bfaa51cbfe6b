"""What the server that workers are forked from has loaded: all that a rank imports, so that none has to."""

import torch._dynamo  # noqa: F401  torch.optim imports it at the first step

import models  # noqa: F401
import runner.training  # noqa: F401
