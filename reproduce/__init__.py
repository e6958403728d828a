"""Train CIFAR-10 networks as in He et al. 2015, section 4.2."""
