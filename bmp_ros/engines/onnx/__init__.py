# SPDX-License-Identifier: Apache-2.0
"""Exported networks through onnxruntime, on CPU, CUDA or TensorRT. Nothing here imports torch."""
