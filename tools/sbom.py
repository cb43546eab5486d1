"""Turns `cargo metadata` (standard input) into a CycloneDX list of one binary's parts.

    sbom.py CARGO_LOCK PACKAGE EPOCH LINKED BUILT

LINKED and BUILT list names and versions: what is in the binary, and that with what it is
built with. The same lock file and commit give the same bytes. What only runs at build
time is marked as excluded; what only tests use is not there.
"""

import datetime
import hashlib
import json
import sys
import tomllib
import uuid


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums, scope):
    made = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "scope": scope,
        "purl": purl(package),
    }
    if package["license"]:
        # Old manifests write "MIT/Apache-2.0".
        expression = package["license"].replace(" / ", " OR ").replace("/", " OR ")
        made["licenses"] = [{"expression": expression}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return made


def listed(path):
    with open(path, encoding="utf-8") as file:
        return {tuple(line.split()) for line in file}


def main():
    lock, name, epoch, linked, built = sys.argv[1:6]
    linked, built = listed(linked), listed(built)
    with open(lock, "rb") as file:
        locked = tomllib.load(file)["package"]
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in locked}
    metadata = json.load(sys.stdin)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(i for i, package in packages.items() if package["name"] == name)
    built_with = {
        i for i, package in packages.items() if (package["name"], package["version"]) in built
    }
    components, dependencies = [], []
    for i in sorted(built_with - {root}, key=lambda i: purl(packages[i])):
        package = packages[i]
        is_linked = (package["name"], package["version"]) in linked
        scope = "required" if is_linked else "excluded"
        components.append(component(package, checksums, scope))
    for i in sorted(built_with, key=lambda i: purl(packages[i])):
        on = {d["pkg"] for d in nodes[i]["deps"]} & built_with
        on = sorted(purl(packages[d]) for d in on)
        dependencies.append({"ref": purl(packages[i]), "dependsOn": on})
    with open(lock, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"quorate:{epoch}:{digest}")
    at = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
    main_part = component(packages[root], checksums, "required")
    main_part |= {"type": "application", "name": "quorate"}
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": main_part,
        },
        "components": components,
        "dependencies": dependencies,
    }
    json.dump(bom, sys.stdout, indent=1)
    print()


main()
