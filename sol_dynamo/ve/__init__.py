"""The NEC SX-Aurora TSUBASA vector engine: the PyTorch device "ve", its simulator, its target.

Nothing is imported here: `registration` names the device when torch is imported, `module` is
`torch.ve`, `extension` builds the C++ part at first use.
"""
