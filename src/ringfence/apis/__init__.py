# SPDX-License-Identifier: Apache-2.0
"""One module per API: wire types, validation in kube-apiserver's words, and lowering to the model. Pure."""
