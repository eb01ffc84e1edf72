# SPDX-License-Identifier: Apache-2.0
"""People who do not exist, with exact ground truth."""
