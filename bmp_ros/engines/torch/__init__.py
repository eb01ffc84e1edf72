# SPDX-License-Identifier: Apache-2.0
"""Networks as plain torch modules that load the published checkpoints key by key."""
