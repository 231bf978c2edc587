"""What is installed: its licences, a bill of materials, and what is known to be unsafe in it.

Writes `licences.csv` and `sbom.json` (CycloneDX 1.6) into a folder, and runs pip-audit where its
data can be had. Exit code 1: a package has a known vulnerability.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

OURS = "mrkd-ray"


def licence(about: Any) -> str:
    """Return what a package's metadata says of its licence, in a line."""
    if expression := about.get("License-Expression"):
        return str(expression)
    classes = [c for c in about.get_all("Classifier") or () if c.startswith("License ::")]
    if classes:
        return "; ".join(c.rpartition(" :: ")[2] for c in classes)
    first = str(about.get("License") or "").strip().partition("\n")[0]
    return first[:100] or "not said"


def packages() -> list[dict[str, str]]:
    """Return name, version and licence of each package that is installed, by name."""
    found: dict[str, dict[str, str]] = {}
    for each in metadata.distributions():
        if not (name := each.metadata["Name"]):
            continue
        canonical = re.sub(r"[-_.]+", "-", name).lower()  # PEP 503
        row = {"name": canonical, "version": each.version, "licence": licence(each.metadata)}
        found.setdefault(canonical, row)  # the first on the path is the one that is imported
    return [found[name] for name in sorted(found)]


def bill(listed: list[dict[str, str]]) -> dict[str, Any]:
    """Return a bill of materials in CycloneDX's JSON."""

    def component(row: dict[str, str]) -> dict[str, Any]:
        url = f"pkg:pypi/{row['name']}@{row['version']}"
        return {
            "type": "library",
            "bom-ref": url,
            "name": row["name"],
            "version": row["version"],
            "purl": url,
            "licenses": [{"license": {"name": row["licence"]}}],
        }

    ours = [component(row) | {"type": "application"} for row in listed if row["name"] == OURS]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": ours[0]} if ours else {},
        "components": [component(row) for row in listed if row["name"] != OURS],
    }


def audit(seconds: float) -> tuple[str, bool]:
    """Return what pip-audit says in a line, and whether it found something."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    command += ["--skip-editable", "--timeout", "5"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        found = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return f"pip-audit: no data within {seconds:g} s: nothing is audited", False
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return f"pip-audit: nothing is audited: {last[:200]}", False
    audited = [row for row in found if "skip_reason" not in row]
    unsafe = [
        f"{row['name']} {row['version']}: {fault['id']}, mended in "
        f"{', '.join(fault['fix_versions']) or 'none yet'}"
        for row in audited
        for fault in row["vulns"]
    ]
    line = f"pip-audit: {len(audited)} of {len(found)} packages audited, {len(unsafe)} faults known"
    return "\n  ".join([line, *unsafe]), bool(unsafe)


def main() -> None:
    """Write both files and print what pip-audit says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("build"), help="folder of both files")
    parser.add_argument("--seconds", type=float, default=60, help="for pip-audit; 0: not at all")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    listed = packages()
    with (options.to / "licences.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["name", "version", "licence"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed)
    (options.to / "sbom.json").write_text(json.dumps(bill(listed), indent=2) + "\n")
    print(f"{options.to}/licences.csv and {options.to}/sbom.json: {len(listed)} packages")
    unsafe = False
    if options.seconds:
        told, unsafe = audit(options.seconds)
        print(told)
    sys.exit(int(unsafe))


if __name__ == "__main__":
    main()
