#!/bin/sh
# Make .venv and install distsgd with its development tools into it, at the versions of constraints.txt.
# PYTHON names the interpreter to use; without it, the newest of Python 3.11 to 3.13 on the PATH.
set -eu
cd "$(dirname "$0")/.."

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

python=""
for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if fits "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    found=$("${PYTHON:-python3}" --version 2>&1 || true)
    echo "distsgd needs Python 3.11, 3.12 or 3.13; found: ${found:-no python3}." >&2
    echo "Install one (e.g. apt-get install python3.11 python3.11-venv) and run: make PYTHON=python3.11 $*" >&2
    exit 1
fi

"$python" -m venv --clear .venv || {
    echo "$python cannot make virtual environments: install its venv module (e.g. apt-get install python3-venv)." >&2
    exit 1
}
echo "Installing into .venv with $("$python" --version); torch is large, this takes some minutes the first time."
if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
then
    rm -rf .venv
    echo >&2
    echo "The packages could not be installed. If the registry cannot be reached, check the network or a proxy" >&2
    echo "(HTTPS_PROXY), or point pip at a mirror (PIP_INDEX_URL) or a folder of wheels (PIP_FIND_LINKS)." >&2
    exit 1
fi
touch .venv/.installed
