"""The ONNX check: exports a network, runs it with onnxruntime and compares feature maps layer by layer.

May import whatever `inspection` may import; onnx and onnxruntime are imported inside functions.
"""
