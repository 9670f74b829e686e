"""The ONNX check: export a network, run it with onnxruntime, and compare feature maps layer by layer.

May import what `inspection` may; onnx and onnxruntime are imported where they are used.
"""
