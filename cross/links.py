#!/usr/bin/env python3
"""Makes the links of an unpacked root right: absolute ones relative, so that a linker on the host can follow them;
and those that update-alternatives would have made, because no package script ran."""
import glob
import os
import sys

root = os.path.abspath(sys.argv[1])
for folder, folders, files in os.walk(root):
    for name in folders + files:
        path = os.path.join(folder, name)
        if not os.path.islink(path):
            continue
        to = os.readlink(path)
        if to.startswith("/") and not to.startswith(("/dev", "/proc", "/etc")):
            os.unlink(path)
            os.symlink(os.path.relpath(root + to, folder), path)

# GStreamer's libav plugin does not load without them.
for library in ("blas", "lapack"):
    for path in glob.glob(f"{root}/usr/lib/*/{library}/lib{library}.so.3"):
        link = os.path.join(os.path.dirname(os.path.dirname(path)), os.path.basename(path))
        if not os.path.lexists(link):
            os.symlink(f"{library}/lib{library}.so.3", link)

# Trixie's ONNX plugin ends the process on Cortex-A53 to A72, where plugins are scanned.
for path in glob.glob(f"{root}/usr/lib/*/gstreamer-1.0/libgstonnx.so"):
    os.unlink(path)
