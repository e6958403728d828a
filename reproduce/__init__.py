"""Train CIFAR-10 networks as in He et al. 2015, section 4.2."""

import os

# If torch_npu is installed without CANN, its automatic loading makes `import torch` fail, so import this package before torch;
# device.py loads torch_npu.
os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
