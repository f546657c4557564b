"""Checks every object of some YAML files: those of Kubernetes as `kubernetes-validate --strict` does, for each of the
given releases, and those of our definitions against their schemas, unknown fields included. CEL rules are left to the
API server. A role with a wildcard fails too. Arguments: releases, folder of the definitions, files."""

import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

# Kinds of other projects, whose schemas no package registry has.
FOREIGN = ("cert-manager.io/", "monitoring.coreos.com/", "security.openshift.io/")


def closed(schema):
    """The same schema, in which no object may have a field that is not described."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


def read(path):
    return [object for object in yaml.safe_load_all(pathlib.Path(path).read_text()) if object]


def definitions(folder):
    schemas = {}
    for path in pathlib.Path(folder).glob("*.yaml"):
        for definition in read(path):
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = closed(version["schema"]["openAPIV3Schema"])
                schema["properties"].update(apiVersion={}, kind={}, metadata={})
                schemas[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return schemas


def wildcards(thing):
    """A complaint for each rule of a role that gives more than it names."""
    for rule in thing.get("rules") or []:
        if thing["kind"] in ("ClusterRole", "Role") and any("*" in value for value in rule.values()):
            yield f"a rule with a wildcard: {rule}"


def main(releases, folder, *files):
    ours, counts, failures = definitions(folder), {"kubernetes": 0, "ours": 0, "foreign": 0}, 0
    for path in files:
        for thing in read(path):
            version, kind = thing["apiVersion"], thing["kind"]
            for complaint in wildcards(thing):
                failures += 1
                print(f"{path}: {kind} {thing['metadata']['name']}: {complaint}", file=sys.stderr)
            try:
                if (version, kind) in ours:
                    counts["ours"] += 1
                    jsonschema.validate(thing, ours[version, kind])
                elif version.startswith(FOREIGN):
                    counts["foreign"] += 1
                else:
                    counts["kubernetes"] += 1
                    for release in releases.split(","):
                        kubernetes_validate.validate(thing, release, strict=True)
            except (jsonschema.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                failures += 1
                where = "/".join(str(part) for part in getattr(error, "absolute_path", []))
                print(f"{path}: {kind} {thing['metadata']['name']}: {where}: {error.message}", file=sys.stderr)
    print(
        f"{counts['kubernetes']} objects of Kubernetes valid for {releases}, {counts['ours']} of our own valid, "
        f"{counts['foreign']} of other projects not checked, {failures} failures"
    )
    return 1 if failures else 0


sys.exit(main(*sys.argv[1:]))
