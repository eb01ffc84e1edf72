# SPDX-License-Identifier: Apache-2.0
"""Networks at work: detectors, pose estimators and segmenters behind three small protocols.

Importing this package costs nothing: torch, onnxruntime, OpenMMLab and sam2 are imported only by
the files that need them, when an engine is built.
"""
