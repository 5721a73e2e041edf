# SPDX-License-Identifier: Apache-2.0
"""The lab's API server: what kubectl, agents and controllers talk to in place of kube-apiserver.

Charter: it keeps objects (``store``), says who may be what (``resources``, ``registry``), decides about writes
(``writing``, ``deleting``, one strategy per kind in ``kinds``), and answers in the forms that clients ask for
(``rendering``, ``printing``, ``watches``, ``discovery``). It runs no pod, schedules nothing, collects no garbage:
controllers and kubelets do that, as clients. Only ``server``, ``watches``, ``streaming`` and ``__main__`` know HTTP;
everything below them is synchronous, so one write happens at a time and none is ever half done.
"""
