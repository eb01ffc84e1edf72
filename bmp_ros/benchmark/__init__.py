# SPDX-License-Identifier: Apache-2.0
"""How long a frame takes, and against what: measurements that print ratios, never assertions."""
