# SPDX-License-Identifier: Apache-2.0
"""People in metres: 3D keypoints from a registered depth image, and depth without the people."""
