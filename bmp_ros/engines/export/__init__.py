# SPDX-License-Identifier: Apache-2.0
"""Native networks to ONNX files for `bmp_ros.engines.onnx`, each one checked against torch."""
