"""Training of one CIFAR-10 network as He et al. 2015, section 4.2, describes it."""
