"""Schemas for kubeconform, and the objects that the core schemas know.

  schemas.py openapi SWAGGER_JSON OUT   one strict schema per kind of Kubernetes
  schemas.py crds OUT CRD_YAML...       the same for custom resources
  schemas.py core FILE                  prints FILE without custom resources
"""
import json
import pathlib
import sys

import yaml

CUSTOM = ("kubeflow.org/", "monitoring.coreos.com/")


def strict(schema):
    """Refuses unknown fields of every object with named properties."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()
              if not (isinstance(key, str) and key.startswith("x-kubernetes"))}
    if (isinstance(result.get("properties"), dict)
            and result.get("type") == "object"
            and "additionalProperties" not in result
            and not schema.get("x-kubernetes-preserve-unknown-fields")):
        result["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
    return result


def inlined(schema, definitions, above):
    """`schema` with its references replaced; recursion becomes "anything"."""
    if isinstance(schema, list):
        return [inlined(each, definitions, above) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$ref"), str):
        name = schema["$ref"].rpartition("/")[2]
        if name in above:
            return {}
        if name.endswith("IntOrString"):
            return {"oneOf": [{"type": "string"}, {"type": "integer"}]}
        if name.endswith(".Quantity"):
            return {"oneOf": [{"type": "string"}, {"type": "number"}]}
        return inlined(definitions[name], definitions, above + [name])
    return {key: inlined(value, definitions, above)
            for key, value in schema.items()}


def write(out, group, version, kind, schema):
    group = "-" + group.split(".")[0] if group else ""
    path = pathlib.Path(out) / f"{kind.lower()}{group}-{version}.json"
    path.write_text(json.dumps(strict(schema)))


def openapi(swagger, out):
    definitions = json.loads(pathlib.Path(swagger).read_text())["definitions"]
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    for name, schema in definitions.items():
        kinds = schema.get("x-kubernetes-group-version-kind", [])
        if len(kinds) == 1:
            kind = kinds[0]
            write(out, kind["group"], kind["version"], kind["kind"],
                  inlined(schema, definitions, [name]))


def crds(out, *files):
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    for file in files:
        for crd in yaml.safe_load_all(pathlib.Path(file).read_text()):
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = version["schema"]["openAPIV3Schema"]
                # What the API server checks itself.
                schema["properties"]["metadata"] = {"type": "object"}
                write(out, spec["group"], version["name"],
                      spec["names"]["kind"], schema)


def core(file):
    objects = yaml.safe_load_all(pathlib.Path(file).read_text())
    print(yaml.safe_dump_all(
        [each for each in objects
         if each and not each["apiVersion"].startswith(CUSTOM)]))


if __name__ == "__main__":
    {"openapi": openapi, "crds": crds, "core": core}[sys.argv[1]](*sys.argv[2:])
