# SPDX-License-Identifier: Apache-2.0
"""How good the loop is: COCO's average precision of boxes, masks and keypoints."""
