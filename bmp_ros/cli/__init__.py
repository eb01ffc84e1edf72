# SPDX-License-Identifier: Apache-2.0
"""The command line: ``python -m bmp_ros VERB`` or ``bmp VERB``."""
