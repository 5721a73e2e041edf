# SPDX-License-Identifier: Apache-2.0
"""What each kind decides about its own objects: what is filled in, what is refused, what may not change.

Charter: one strategy per kind (``strategy.Strategy`` is the least a kind needs), rules as small functions and tables,
complaints in kube-apiserver's words with ``ringfence.apis.fields``. No HTTP, no writing to the store.
"""
