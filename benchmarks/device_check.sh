#!/bin/sh
# Sets a machine with a GPU and no network up for benchmarks/device_check.py, and runs it.
#
#   sh benchmarks/device_check.sh wheels [FOLDER]         where there is a network: fetches wheels
#   sh benchmarks/device_check.sh install [FOLDER]        only installs them into $TARGET
#   sh benchmarks/device_check.sh run OUTPUT [ARGUMENTS]  on the machine: installs them and runs the checks
#
# Called from the root of the repository. The machine must have torch, numpy, scipy and scikit-learn; transformers
# and accelerate are used where they are there. All else that Paceline needs is fetched, in the versions of
# constraints.txt: about 12 MiB. Variables, with their defaults:
#   PYTHON=python3              the interpreter that has torch
#   WHEELS=.whl                 the folder of wheels
#   TARGET=/tmp/paceline-site   where they are installed
#   PYTHON_VERSION=3.12         wheels: of the machine's interpreter
#   ARCHITECTURE=x86_64         wheels: of the machine's processor
set -eu

python=${PYTHON:-python3}
wheels=${WHEELS:-.whl}
target=${TARGET:-/tmp/paceline-site}

# What Paceline needs, and what those need in turn.
packages='alembic annotated-doc annotated-types colorlog contourpy cycler fonttools Jinja2 kiwisolver Mako
markdown-it-py MarkupSafe matplotlib mdurl optuna packaging pillow pydantic pydantic_core Pygments pyparsing
python-dateutil PyYAML pyzmq rich shellingham six SQLAlchemy threadpoolctl tqdm typer typing-inspection
typing_extensions tzdata'

fetch() {
    wanted=
    for package in $packages; do
        wanted="$wanted $(grep -i "^$package==" constraints.txt)"
    done
    platforms=
    # pip takes each name as it is: a wheel for an older C library is no match for a newer name.
    for version in 2_28 2_27 2_26 2_24 2_17; do
        platforms="$platforms --platform manylinux_${version}_${ARCHITECTURE:-x86_64}"
    done
    platforms="$platforms --platform manylinux2014_${ARCHITECTURE:-x86_64}"
    rm -rf "$wheels"
    mkdir -p "$wheels"
    # Unquoted on purpose: lists of words.
    # shellcheck disable=SC2086
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --implementation cp --python-version "${PYTHON_VERSION:-3.12}" $platforms --dest "$wheels" $wanted
    du -sh "$wheels"
}

install() {
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile \
        --no-cache-dir --upgrade --target "$target" "$wheels"/*.whl
}

mode=${1:-}
[ $# -eq 0 ] || shift
case $mode in
wheels)
    wheels=${1:-$wheels}
    fetch
    ;;
install)
    wheels=${1:-$wheels}
    install
    ;;
run)
    output=${1:?'say where the results go: sh benchmarks/device_check.sh run OUTPUT'}
    shift
    install
    PYTHONPATH="$PWD:$target${PYTHONPATH:+:$PYTHONPATH}"
    export PYTHONPATH
    exec "$python" -m benchmarks.device_check --output "$output" "$@"
    ;;
*)
    echo 'usage: sh benchmarks/device_check.sh wheels | install | run OUTPUT [ARGUMENTS]' >&2
    exit 2
    ;;
esac
